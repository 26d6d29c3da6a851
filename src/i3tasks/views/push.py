"""The endpoint that Pub/Sub POSTs the messages of push subscriptions to."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any

from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from ..broker.auth.verification import verify_push
from ..broker.deliveries import Delivery
from ..conf import Identity
from ..core.clock import SYSTEM_CLOCK
from ..core.deciding import GiveUp
from ..core.outcome import Failure, Outcome, Released, Success
from ..core.values import shown
from ..engine.push import PASS_EVERY_SECONDS, carry_out, dispatch
from ..engine.report import NotRun, Report, Verdict
from ..exceptions import EnvelopeError
from ..store.requests import Refusal
from ..telemetry import emit
from .guards import for_google_cloud, refused

STATUS_OF_NACK: dict[Refusal | NotRun | None, int] = {NotRun.UNREADABLE: 400, Refusal.UNKNOWN: 404}
"""4xx makes Pub/Sub deliver again, with backoff, and in the end put the message among the dead letters."""
NOT_NOW = 503
LARGEST_REQUEST = 16_000_000
"""Bytes. A message has 10 MB at most, which base64 makes a third longer."""
TRY_FACTS = (
    "task_execution_id",
    "task_execution_try_id",
    "try_number",
    "asked_at",
    "started_at",
    "finished_at",
    "is_completed",
    "is_success",
    "result",
)
"""The fields of an answer about a try, in the documented order."""


@for_google_cloud(verify_push)
async def push(request: HttpRequest, sender: Identity | None) -> HttpResponse:
    """Run the try that one message names. The answer is sent after the commit that it rests on."""
    return await answer(request.read(most_bytes() + 1), sender)


async def answer(body: bytes, sender: Identity | None) -> HttpResponse:
    """The answer to a verified request with this body, of which one byte more than `most_bytes` is enough."""
    most = most_bytes()
    if len(body) > most:
        emit("envelope_refused", error=f"The request has more than {most} bytes.")
        return refused(413, f"The request has more than {most} bytes, which is DATA_UPLOAD_MAX_MEMORY_SIZE at most.")
    try:
        delivery = _delivery(body)
    except EnvelopeError as error:
        emit("envelope_refused", error=str(error), data=body[:200])
        return refused(400, str(error))
    report = await carry_out(delivery, sender)
    await dispatch(every_seconds=PASS_EVERY_SECONDS)
    return _answer(report)


def most_bytes() -> int:
    """The length that a request may have: Django's limit, and never more than Pub/Sub's largest message takes."""
    limit: int | None = django_settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    return LARGEST_REQUEST if limit is None else min(limit, LARGEST_REQUEST)


def _answer(report: Report) -> HttpResponse:
    if report.verdict is Verdict.NACK:
        return refused(STATUS_OF_NACK.get(report.reason, NOT_NOW), report.sentence)
    outcome = report.outcome
    if isinstance(outcome, Failure) and isinstance(outcome.then, GiveUp) and report.reason is None:
        return refused(200, f"{outcome.error.error_class}: {outcome.error.message}")
    facts = _facts(report)
    if facts is None:
        return refused(200, f"nothing was run: {report.sentence}")
    return JsonResponse({"status": "ok", "result": facts})


def _facts(report: Report) -> dict[str, Any] | None:
    """The documented facts about the try that ran; after a failure, about the next one.

    All of it comes from the claim and the settlement: a query would need a connection for each request.
    """
    claimed, settled, outcome = report.claimed, report.settled, report.outcome
    if claimed is None or settled is None:
        return None
    facts = dict.fromkeys(TRY_FACTS) | {
        "task_execution_id": claimed.execution_id,
        "task_execution_try_id": claimed.try_id,
        "try_number": claimed.try_number,
        "asked_at": claimed.asked_at,
        "is_completed": False,
        "is_success": False,
    }
    if settled.next_try is not None:
        following = settled.next_try
        return facts | {
            "task_execution_try_id": following.try_id,
            "try_number": following.try_number,
            "asked_at": following.asked_at,
        }
    if isinstance(outcome, Released):
        return facts
    return facts | {
        "started_at": claimed.started_at,
        "finished_at": settled.at,
        "is_completed": True,
        "is_success": isinstance(outcome, Success),
        "result": _result(outcome),
        **({"result_is_text_of": outcome.text_of} if isinstance(outcome, Success) and outcome.text_of else {}),
    }


def _result(outcome: Outcome | None) -> Any:
    if isinstance(outcome, Success):
        return shown(outcome.value)
    return outcome.error.message if isinstance(outcome, Failure) else None


def _delivery(body: bytes) -> Delivery:
    """Read the JSON that a push subscription sends. Raises EnvelopeError saying what is wrong with it."""
    try:
        message = json.loads(body)["message"]
        data = base64.b64decode(message.get("data", ""), validate=True)
        attributes = message.get("attributes") or {}
        message_id = message.get("messageId") or message.get("message_id") or ""
        published = message.get("publishTime") or message.get("publish_time")
    except (ValueError, RecursionError, binascii.Error) as error:
        raise EnvelopeError(f"The request is not a Pub/Sub push message: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise EnvelopeError(
            "The request has no `message` object with base64 `data`: it is not a push message."
        ) from error
    if not isinstance(attributes, dict) or not all(isinstance(value, str) for value in attributes.values()):
        raise EnvelopeError("`message.attributes` must be an object with text values.")
    return Delivery(
        data=data,
        attributes=attributes,
        message_id=str(message_id),
        publish_time=_instant(published),
        delivery_attempt=None,
        queue_name="",
    )


def _instant(text: object) -> datetime:
    """The instant at which the message was published. Without a readable time it counts as new."""
    try:
        instant = datetime.fromisoformat(str(text))
    except ValueError:
        return SYSTEM_CLOCK.now()
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)

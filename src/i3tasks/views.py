"""The HTTP doors: what Pub/Sub and Cloud Scheduler POST."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.core.exceptions import RequestDataTooBig
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from .broker.handover import Delivery
from .clock import SYSTEM_CLOCK
from .conf import get_config
from .engine.beat import beat_once, scheduled_time
from .engine.executor import Report, Verdict
from .engine.push import PASS_EVERY_SECONDS, carry_out, dispatch
from .exceptions import EnvelopeError
from .models import TaskExecutionTry
from .outcome import Failure
from .retry import GiveUp, RetryIn
from .store.database import rows
from .store.reports import try_facts
from .telemetry import emit

View = Callable[..., Coroutine[Any, Any, HttpResponse]]

STATUS_OF_NACK = {"unreadable": 400, "unknown": 404}
"""4xx makes Pub/Sub deliver again, with backoff, and in the end put the message among the dead letters."""
NOT_NOW = 503


def _for_machines(view: View) -> View:
    """POST only, no CSRF token, no transaction around it, and nobody who is not verified."""

    async def guarded(request: HttpRequest) -> HttpResponse:
        config = get_config()
        if not config.pubsub.emulator and not config.settings.allow_unverified:
            emit("request_denied", path=request.path)
            return _bad(
                403, "Not verified. Set allow_unverified=True in I3TASKS only where nobody else can send requests."
            )
        return await view(request)

    return csrf_exempt(require_POST(outside_transactions(guarded)))


def outside_transactions(view: View) -> View:
    """Keep ATOMIC_REQUESTS, of any database, off an async view."""
    for alias in django_settings.DATABASES:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


@_for_machines
async def push(request: HttpRequest) -> HttpResponse:
    """One message of a push subscription. 200 is said after the commit that the answer rests on."""
    try:
        body = request.body
    except RequestDataTooBig as error:
        emit("envelope_refused", error=str(error))
        return _bad(413, str(error))
    try:
        delivery = _delivery(body)
    except EnvelopeError as error:
        emit("envelope_refused", error=str(error), data=body[:200])
        return _bad(400, str(error))
    report = await carry_out(delivery)
    await dispatch(every_seconds=PASS_EVERY_SECONDS)
    return await _answer(report)


@_for_machines
async def beat(request: HttpRequest) -> HttpResponse:
    """Cloud Scheduler's minute: enqueue due schedules, publish what is due, end the tries of workers that are gone."""
    has_beaten = await beat_once(scheduled_time(request.headers.get("X-CloudScheduler-ScheduleTime")))
    await dispatch()
    if not has_beaten:
        return _bad(NOT_NOW, "The database gave no answer. What is due stays due.")
    return JsonResponse({"status": "ok"})


async def _answer(report: Report) -> HttpResponse:
    if report.verdict is Verdict.NACK:
        reason = report.reason or ""
        return _bad(STATUS_OF_NACK.get(reason.partition(":")[0], NOT_NOW), reason)
    outcome = report.outcome
    if isinstance(outcome, Failure) and isinstance(outcome.then, GiveUp) and report.reason is None:
        return _bad(200, f"{outcome.error.error_class}: {outcome.error.message}")
    task_try = await sync_to_async(_latest_try)(report)
    if task_try is None:
        return _bad(200, f"nothing was run: {report.reason}")
    facts = {"task_execution_id": task_try.task_execution_id, **try_facts(task_try)}
    return JsonResponse({"status": "ok", "result": facts})


def _latest_try(report: Report) -> TaskExecutionTry | None:
    """The try that was delivered; after a failure, the next one."""
    assert report.envelope is not None
    tries = rows(TaskExecutionTry).select_related("result")
    if isinstance(report.outcome, Failure) and isinstance(report.outcome.then, RetryIn):
        return tries.filter(task_execution=report.envelope.task_execution_id).order_by("try_number").last()
    return tries.filter(pk=report.envelope.task_execution_try_id).first()


def _bad(status: int, error: str) -> HttpResponse:
    return JsonResponse({"status": "bad", "error": error}, status=status)


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
    """When the message was published; without a readable time it counts as new."""
    try:
        instant = datetime.fromisoformat(str(text))
    except ValueError:
        return SYSTEM_CLOCK.now()
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)

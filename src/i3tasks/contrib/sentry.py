"""Sentry: `pip install sentry-sdk`, and `sentry=True` in I3TASKS, or `instrument()` in an AppConfig's `ready`.

    queue.publish    a span of the request or the try that makes a call
    queue.process    a transaction for each try, with what went wrong in it

With `crons`, each schedule is a cron monitor: a beat begins a check-in for each slot, and the end of its execution ends
it. So Sentry tells of a slot that no beat has seen, of an execution that failed, and of one that takes too long.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any

import sentry_sdk
from sentry_sdk.crons import capture_checkin

from ..store.concealing import has_secrets
from ..telemetry import TRY, Event, Facts, subscribe

SYSTEM = "gcp_pubsub"
LONGEST_SLUG = 50
STATUS = {
    "try_succeeded": "ok",
    "try_failed": "internal_error",
    "execution_failed": "internal_error",
    "execution_cancelled": "cancelled",
    "try_released": "aborted",
    "settlement_stale": "aborted",
}
ENDS_OF_EXECUTIONS = {"try_succeeded": "ok", "execution_failed": "error", "execution_cancelled": "error"}

_open: ContextVar[tuple[Any, ExitStack, int] | None] = ContextVar("i3tasks_sentry", default=None)
_stops: list[Callable[[], None]] = []


def instrument(*, crons: bool = False, margin_minutes: int = 5, longest_minutes: int = 60) -> None:
    """Report to Sentry what this process enqueues and runs from now on. `sentry_sdk.init` is the project's own.

    crons            make each schedule a cron monitor
    margin_minutes   how late a slot's check-in may be
    longest_minutes  how long an execution may take, with its wait and its retries
    """
    uninstrument()
    _stops.append(subscribe(_published, ["execution_enqueued"]))
    _stops.append(subscribe(_begin, ["try_started"]))
    _stops.append(subscribe(_capture, ["execution_failed"]))
    _stops.append(subscribe(_end, STATUS))
    if crons:
        config = {"checkin_margin": margin_minutes, "max_runtime": longest_minutes}
        _stops.append(subscribe(lambda _, facts: _check_in(facts, config), ["schedule_ticked"]))
        _stops.append(subscribe(_check_out, ENDS_OF_EXECUTIONS))


def uninstrument() -> None:
    """Report no more."""
    while _stops:
        _stops.pop()()


def _published(event: Event, facts: Facts) -> None:
    if sentry_sdk.get_current_span() is not None:
        with sentry_sdk.start_span(op="queue.publish", name=facts["task"], origin="auto.queue.i3tasks") as span:
            _describe(span, facts)


def _begin(event: Event, facts: Facts) -> None:
    with ExitStack() as stack:
        scope = stack.enter_context(sentry_sdk.isolation_scope())
        for name in ("task", "queue", "execution_id", "try_number"):
            scope.set_tag(f"i3tasks.{name}", str(facts[name]))
        scope.set_context("i3tasks", {name: str(facts[name]) for name in TRY})
        if has_secrets(*_names(facts["task"])):
            scope.add_event_processor(_without_variables)
        # Each try is a trace of its own: the one that made the call may be long over.
        transaction = sentry_sdk.start_transaction(
            op="queue.process", name=facts["task"], source="task", origin="auto.queue.i3tasks"
        )
        stack.enter_context(transaction)
        _describe(transaction, facts)
        transaction.set_data("messaging.message.receive.latency", facts["queue_time"] * 1000)
        transaction.set_data("messaging.message.retry.count", facts["try_number"] - 1)
        _open.set((transaction, stack.pop_all(), facts["try_id"]))


def _capture(event: Event, facts: Facts) -> None:
    """Capture the last error of an execution. Where its log line was captured already, the SDK drops it as the same."""
    error = facts.get("exc_info")
    if error is None:
        return
    if _is_open(facts):
        sentry_sdk.capture_exception(error)
        return
    with sentry_sdk.new_scope() as scope:  # a worker was lost: another process tells of it
        scope.set_context("i3tasks", {name: str(facts.get(name)) for name in TRY})
        sentry_sdk.capture_exception(error)


def _end(event: Event, facts: Facts) -> None:
    if not _is_open(facts):
        return
    opened = _open.get()
    assert opened is not None
    transaction, stack, _ = opened
    _open.set(None)
    transaction.set_status(STATUS[event.name])
    stack.close()


def _is_open(facts: Facts) -> bool:
    opened = _open.get()
    return opened is not None and opened[2] == facts["try_id"]


def _describe(span: Any, facts: Facts) -> None:
    span.set_data("messaging.system", SYSTEM)
    span.set_data("messaging.message.id", str(facts["execution_uuid"]))
    span.set_data("messaging.destination.name", facts["queue"])


def _check_in(facts: Facts, config: dict[str, int]) -> None:
    schedule = {"type": "crontab", "value": facts["cron"]}
    monitor: Any = {"schedule": schedule, "timezone": facts["time_zone"], **config}
    for uuid in facts["execution_uuids"]:
        capture_checkin(slug(facts["schedule"]), uuid.hex, "in_progress", monitor_config=monitor)


def _check_out(event: Event, facts: Facts) -> None:
    if "schedule" in facts:
        status, duration = ENDS_OF_EXECUTIONS[event.name], facts.get("duration")
        capture_checkin(slug(facts["schedule"]), facts["execution_uuid"].hex, status, duration)


def slug(schedule: str) -> str:
    """The slug of a schedule's monitor: its name in the letters that Sentry takes."""
    text = re.sub(r"[^a-z0-9_-]+", "-", schedule.lower()).strip("-")
    if text == schedule and len(text) <= LONGEST_SLUG:
        return text
    digest = hashlib.sha256(schedule.encode()).hexdigest()[:8]
    return f"{text[: LONGEST_SLUG - 9]}-{digest}".strip("-")


def _names(task: str) -> tuple[str, str]:
    module_name, _, func_name = task.rpartition(".")
    return module_name, func_name


def _without_variables(event: Any, hint: Any) -> Any:
    """Take the variables out of an event's frames: they hold the arguments."""
    for part in ("exception", "threads"):
        for value in (event.get(part) or {}).get("values") or ():
            for frame in (value.get("stacktrace") or {}).get("frames") or ():
                frame.pop("vars", None)
    return event

"""What the health and status endpoints say, read with Django's async ORM. See docs/health.md.

A try is over once it is completed, and also once it has a `finished_at`: django-i3tasks never completed a try that
failed, and its rows must not look as if they ran for ever.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, DateTimeField, F, Min, Q
from django.db.models.functions import Coalesce

from ..clock import SYSTEM_CLOCK
from ..conf import get_config
from ..models import ScheduleState, TaskExecution, TaskExecutionTry
from ..types import I3TasksSettings
from ..values import decode
from .database import Rows, rows
from .groups import stalled_groups

NOBODY_COMES_AFTER = timedelta(days=31)
"""Pub/Sub keeps no message longer, so an unfinished row of django-i3tasks that is older will never be run."""
DISPATCHER_SECONDS = 120
"""A worker's dispatcher takes what is due within a second; POST tasks-beat, within a minute."""
BROKEN_FOR = timedelta(hours=3)
MOST_TASKS = 50
MOST_TRIES = 1000
MOST_SCHEDULES = 10

STATES = PENDING, RUNNING, SUCCESS, FAILED = "pending", "running", "success", "failed"
OK, WARNING, CRITICAL = "ok", "warning", "critical"


async def health(now: datetime | None = None) -> dict[str, Any]:
    """The health endpoint's answer: `status` is ok, warning or critical, and `problems` says why."""
    now = now or SYSTEM_CLOCK.now()
    settings = get_config().settings
    window = timedelta(minutes=settings.health_window_minutes)
    longest_run = timedelta(minutes=settings.health_stuck_minutes)
    by_task = await _by_task(now - window, now)
    totals = {state: sum(facts[state] for facts in by_task) for state in STATES}
    stuck = await _stuck(now - longest_run, now).acount()
    waited = _age(await _pending_since(now), now)
    undispatched = _age(await _due_since(), now)
    broken = [key async for key in _broken_schedules(now)]
    stalled = await stalled_groups(now - longest_run).acount()

    critical = [*_stuck_problem(stuck, settings), *_pending_problem(waited, settings)]
    warnings = [
        *_failed_problem(totals[FAILED], settings),
        *_dispatcher_problem(undispatched),
        *(f"schedule {key!r} can't be run: see its last error" for key in broken),
        *_stalled_problem(stalled),
    ]
    return {
        "status": CRITICAL if critical else WARNING if warnings else OK,
        "now": now.isoformat(timespec="seconds"),
        "window_minutes": settings.health_window_minutes,
        "thresholds": {
            "stuck_minutes": settings.health_stuck_minutes,
            "failed_threshold": settings.health_failed_threshold,
            "pending_age_seconds_threshold": settings.health_pending_age_seconds_threshold,
        },
        "totals": totals,
        "stuck_running": stuck,
        "oldest_pending_age_seconds": waited,
        "problems": [*critical, *warnings],
        "by_task": by_task[:MOST_TASKS],
    }


async def status(**key: int | UUID) -> dict[str, Any] | None:
    """The status endpoint's answer about the execution with this `id` or `uuid`; None when there is none."""
    execution = await rows(TaskExecution).filter(**key).afirst()
    if execution is None:
        return None
    latest = rows(TaskExecutionTry).filter(task_execution=execution.pk).order_by("-try_number")
    tries = [task_try async for task_try in latest.select_related("result")[:MOST_TRIES]]
    return {
        "status": _status(tries),
        "task": {
            "id": execution.pk,
            "uuid": str(execution.uuid),
            "task_name": execution.task_name,
            "task_path": execution.task_path,
            "task_args": decode(execution.task_args),
            "task_kwargs": decode(execution.task_kwargs),
            "task_group_id": execution.task_group_id,
            "created_at": execution.created_at.isoformat(),
            "updated_at": execution.updated_at.isoformat(),
        },
        "tries": [_with_texts(try_facts(task_try)) for task_try in reversed(tries)],
    }


def try_facts(task_try: TaskExecutionTry) -> dict[str, Any]:
    """A try as the endpoints show it. Its relation `result` should be loaded."""
    return {
        "task_execution_try_id": task_try.pk,
        "try_number": task_try.try_number,
        "asked_at": task_try.asked_at,
        "started_at": task_try.started_at,
        "finished_at": task_try.finished_at,
        "is_completed": task_try.is_completed,
        "is_success": task_try.is_success,
        "result": shown_result(task_try),
    }


def state_of(task_try: TaskExecutionTry) -> str:
    """One of STATES."""
    if task_try.is_success:
        return SUCCESS
    if task_try.is_completed or (task_try.started_at and task_try.finished_at):
        return FAILED
    return RUNNING if task_try.started_at else PENDING


def shown_result(task_try: TaskExecutionTry) -> Any:
    """What the try returned, or its error's text; None without a result."""
    result = getattr(task_try, "result", None)
    if result is None:
        return None
    value = result.result
    # A try without a token was run by django-i3tasks, which stored the result's JSON as a JSON string.
    if isinstance(value, str) and task_try.claim_token is None:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return decode(value)


async def _by_task(since: datetime, now: datetime) -> list[dict[str, Any]]:
    """How many of the tries asked for since then are in which state, by task: most failures first."""
    # The tries of a time belong to executions of a range of ids; told its beginning, PostgreSQL reads no others.
    # (+ 0, or it would look for the minimum by walking the index on that very column from its other end.)
    asked = rows(TaskExecutionTry).filter(asked_at__gte=since)
    first = (await asked.aaggregate(first=Min(F("task_execution_id") + 0)))["first"]
    if first is None:
        return []
    executions: Rows = rows(TaskExecution).filter(pk__gte=first, tries__asked_at__gte=since)
    states = {
        SUCCESS: Q(tries__is_completed=True, tries__is_success=True),
        FAILED: Q(tries__is_success=False)
        & (Q(tries__is_completed=True) | Q(tries__started_at__isnull=False, tries__finished_at__isnull=False)),
        RUNNING: Q(tries__is_completed=False, tries__started_at__isnull=False, tries__finished_at__isnull=True),
        PENDING: Q(tries__is_completed=False, tries__started_at__isnull=True)
        & (Q(tries__run_after__isnull=True) | Q(tries__run_after__lte=now)),
    }
    counts = {state: Count("tries", filter=condition) for state, condition in states.items()}
    counted = executions.values("task_path", "task_name").annotate(**counts)
    facts = [
        {**row, "task_path": f"{row['task_path']}.{row['task_name']}"}
        async for row in counted.order_by("-failed", "-success", "task_path", "task_name")
    ]
    return [row for row in facts if any(row[state] for state in states)]


def _stuck(before: datetime, now: datetime) -> Rows:
    """Tries that have run since before then."""
    is_looked_after = Q(lease_until__isnull=False) | Q(started_at__gte=now - NOBODY_COMES_AFTER)
    running = rows(TaskExecutionTry).filter(is_completed=False, finished_at__isnull=True, started_at__isnull=False)
    return running.filter(is_looked_after, started_at__lt=before)


async def _pending_since(now: datetime) -> datetime | None:
    """From when on the longest waiting try could have been run. What is put off to later is no backlog."""
    is_looked_after = Q(dispatch_at__isnull=False) | Q(asked_at__gte=now - NOBODY_COMES_AFTER)
    due_since = Coalesce("run_after", "asked_at", output_field=DateTimeField())
    waiting = rows(TaskExecutionTry).filter(is_completed=False, started_at__isnull=True).filter(is_looked_after)
    return await waiting.order_by(due_since).values_list(due_since, flat=True).afirst()


async def _due_since() -> datetime | None:
    """When the first of the tries fell due that were never published, and that no dispatcher has taken up since."""
    due = rows(TaskExecutionTry).filter(dispatch_at__isnull=False, publish_count=0)
    return await due.order_by("dispatch_at").values_list("dispatch_at", flat=True).afirst()


def _broken_schedules(now: datetime) -> Rows:
    """The keys of schedules that can't be run; beats say so once an hour. One that nobody beats is forgotten."""
    states = rows(ScheduleState).exclude(last_error="").filter(last_error_at__gte=now - BROKEN_FOR)
    return states.order_by("schedule_key").values_list("schedule_key", flat=True)[:MOST_SCHEDULES]


def _age(instant: datetime | None, now: datetime) -> int:
    """Whole seconds; 0 for no instant, and for one to come."""
    return 0 if instant is None else max(int((now - instant).total_seconds()), 0)


def _stuck_problem(stuck: int, settings: I3TasksSettings) -> Iterator[str]:
    if stuck > 0:
        yield f"{stuck} tries running for more than {settings.health_stuck_minutes} minutes"


def _pending_problem(waited: int, settings: I3TasksSettings) -> Iterator[str]:
    if waited > settings.health_pending_age_seconds_threshold:
        yield f"oldest pending try is {waited}s old (>{settings.health_pending_age_seconds_threshold}s)"


def _failed_problem(failed: int, settings: I3TasksSettings) -> Iterator[str]:
    if failed > settings.health_failed_threshold:
        minutes, threshold = settings.health_window_minutes, settings.health_failed_threshold
        yield f"{failed} failed tries in last {minutes} minutes (>{threshold})"


def _dispatcher_problem(undispatched: int) -> Iterator[str]:
    if undispatched > DISPATCHER_SECONDS:
        yield (
            f"a try that was due {undispatched}s ago has not been published (>{DISPATCHER_SECONDS}s): "
            "is a worker, or POST tasks-beat each minute, at work, and Pub/Sub there?"
        )


def _stalled_problem(stalled: int) -> Iterator[str]:
    if stalled > 0:
        yield f"{stalled} groups wait for members that nobody has enqueued: close() or cancel() them"


def _status(latest_first: Sequence[TaskExecutionTry]) -> str:
    """All tries in one word: any success counts, else the latest try does."""
    if not latest_first:
        return "unknown"
    return SUCCESS if any(task_try.is_success for task_try in latest_first) else state_of(latest_first[0])


def _with_texts(facts: dict[str, Any]) -> dict[str, Any]:
    """The instants as ISO 8601 with an offset of `+00:00`, as documented."""
    return {name: fact.isoformat() if isinstance(fact, datetime) else fact for name, fact in facts.items()}

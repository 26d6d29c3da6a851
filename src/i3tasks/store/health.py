"""The answer of the health endpoint, read with Django's async ORM. See docs/health.md."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.db import OperationalError, ProgrammingError
from django.db.models import Count, DateTimeField, F, Min, Q
from django.db.models.functions import Coalesce

from ..conf import get_config, queue_or_default
from ..models import ExecutionOutcome, QueuePause, ScheduleState, TaskExecution, TaskExecutionTry, TryState
from ..types import I3TasksSettings
from .database import Rows, is_unmigrated, missing_tables, rows
from .groups import stalled_groups
from .liveness import troubles
from .states import CANCELLED_CLASS, FAILED_TRY
from .workers import broker_troubles
from .workflow_links import LONGEST_DELIVERY

DISPATCHER_SECONDS = 75
"""A worker's dispatcher takes what is due within a second; POST tasks-beat, within a minute. With the grace of a call
whose publish is not confirmed, that makes about two minutes from the call on."""
BROKEN_FOR = timedelta(hours=3)
MOST_COUNTED = 5_000
"""Most tries of the window that are counted, the newest, and most failures before them; of more, only the later."""
MOST_TASKS = 50
MOST_SCHEDULES = 10
MOST_OF_PAUSED = 5_000

OK, WARNING, CRITICAL = "ok", "warning", "critical"
MISSING = (
    "tables are missing, though their migrations are recorded as applied: {tables}. Is it the right database and "
    "schema, and may its user see them? Dropped ones must come from a backup"
)
UNMIGRATED = "the tables of i3tasks are missing, or older than this version: run manage.py migrate"


async def health(now: datetime, *, broker_trouble: str | None = None) -> dict[str, Any]:
    """The health endpoint's answer: `status` is ok, warning or critical, and `problems` says why.

    `broker_trouble` is what the process that asks has met itself in publishing; workers note theirs in their rows.
    """
    try:
        return await _health(now, broker_trouble)
    except (ProgrammingError, OperationalError):
        problem = await sync_to_async(_schema_problem)()
        if not problem:
            raise
        return _report(now, [problem], [])


def _schema_problem() -> str:
    if is_unmigrated():
        return UNMIGRATED
    missing = missing_tables()
    return MISSING.format(tables=", ".join(missing)) if missing else ""


async def _health(now: datetime, broker_trouble: str | None) -> dict[str, Any]:
    settings = get_config().settings
    window = timedelta(minutes=settings.health_window_minutes)
    longest_run = timedelta(minutes=settings.health_stuck_minutes)
    counted_since, by_task = await _by_task(now - window, now)
    stuck = await _stuck(now - longest_run, now).acount()
    paused = {pause.queue_name: pause async for pause in rows(QueuePause).order_by("queue_name")}
    pending_since, is_cut = await _pending_since(now, {*paused})
    waited = _age(pending_since, now)
    undispatched = _age(await _due_since(now), now)
    broken = [key async for key in _broken_schedules(now)]
    stalled = await stalled_groups(now - longest_run).acount()

    critical = [*_stuck_problem(stuck, settings), *_pending_problem(waited, settings)]
    warnings = [
        *_failed_problem(_totals(by_task)[TryState.FAILED], settings),
        *_dispatcher_problem(undispatched),
        *_broker_problems(broker_trouble, await broker_troubles(now)),
        *(f"schedule {key!r} can't be run: see its last error" for key in broken),
        *_stalled_problem(stalled),
        *_paused_problems(paused.values(), is_cut),
        *await troubles(now, {*paused}),
    ]
    return _report(now, critical, warnings, counted_since, by_task=by_task, stuck=stuck, waited=waited)


def _report(
    now: datetime,
    critical: list[str],
    warnings: list[str],
    counted_since: datetime | None = None,
    *,
    by_task: Sequence[dict[str, Any]] = (),
    stuck: int = 0,
    waited: int = 0,
) -> dict[str, Any]:
    settings = get_config().settings
    return {
        "status": CRITICAL if critical else WARNING if warnings else OK,
        "now": now.isoformat(timespec="seconds"),
        "window_minutes": settings.health_window_minutes,
        "thresholds": {
            "stuck_minutes": settings.health_stuck_minutes,
            "failed_threshold": settings.health_failed_threshold,
            "pending_age_seconds_threshold": settings.health_pending_age_seconds_threshold,
        },
        "counted_since": (counted_since or now).isoformat(timespec="seconds"),
        "totals": _totals(by_task),
        "stuck_running": stuck,
        "oldest_pending_age_seconds": waited,
        "problems": [*critical, *warnings],
        "by_task": list(by_task[:MOST_TASKS]),
    }


def _totals(by_task: Sequence[dict[str, Any]]) -> dict[str, int]:
    return {state: sum(facts[state] for facts in by_task) for state in TryState.values}


async def _by_task(since: datetime, now: datetime) -> tuple[datetime, list[dict[str, Any]]]:
    """How many of the tries asked for since then are in which state, by task: most failures first.

    Where there are more than MOST_COUNTED, only the newest are counted, and the failures among the others. Gives since
    when all of them were.
    """
    counted_since = await _newest(rows(TaskExecutionTry).filter(asked_at__gte=since), "asked_at") or since
    counted = await _counted_from(counted_since, now)
    if counted_since > since:
        for task, failed in (await _failed_between(since, counted_since, now)).items():
            counted.setdefault(task, dict.fromkeys(TryState.values, 0))[TryState.FAILED] += failed[TryState.FAILED]
    facts: list[dict[str, Any]] = [
        {"task_path": f"{path}.{name}", "task_name": name, **counts}
        for (path, name), counts in counted.items()
        if any(counts.values())
    ]
    facts.sort(key=lambda row: (-row[TryState.FAILED], -row[TryState.SUCCESS], row["task_path"]))
    return counted_since, facts


async def _newest(tries: Rows, column: str) -> datetime | None:
    """The instant of the last of the newest MOST_COUNTED of them; None if there are no more."""
    instant: datetime | None = await tries.order_by(f"-{column}").values_list(column, flat=True)[MOST_COUNTED:].afirst()
    return instant


Counts = dict[tuple[str, str], dict[str, int]]
"""By the module and name of a task: how many of its tries are in each state."""


async def _counted_from(since: datetime, now: datetime) -> Counts:
    # The tries of a time belong to executions of a range of ids; told its beginning, PostgreSQL reads no others.
    # (+ 0, or it would look for the minimum by walking the index on that very column from its other end.)
    asked = rows(TaskExecutionTry).filter(asked_at__gte=since)
    first = (await asked.aaggregate(first=Min(F("task_execution_id") + 0)))["first"]
    return {} if first is None else await _counts(now, pk__gte=first, tries__asked_at__gte=since)


async def _failed_between(since: datetime, until: datetime, now: datetime) -> Counts:
    """Tries that were asked for between these instants and have failed, by the index of failed ones."""
    failed = rows(TaskExecutionTry).filter(FAILED_TRY, finished_at__gte=since)
    ended = {
        "is_completed": True,
        "is_success": False,
        "finished_at__gte": await _newest(failed, "finished_at") or since,
    }
    asked = {"asked_at__gte": since, "asked_at__lt": until}
    return await _counts(now, **{f"tries__{column}": value for column, value in (ended | asked).items()})


async def _counts(now: datetime, **conditions: Any) -> Counts:
    states = {state.value: state.condition("tries__") for state in TryState}
    states[TryState.PENDING] &= Q(tries__run_after__isnull=True) | Q(tries__run_after__lte=now)
    # Calling an execution off is no failure; a try that failed before that is one.
    called_off = Q(outcome=ExecutionOutcome.CANCELLED, tries__finished_at=F("finished_at"))
    states[TryState.FAILED] &= ~called_off & ~Q(tries__error_class=CANCELLED_CLASS)
    counts = {state: Count("tries", filter=condition) for state, condition in states.items()}
    counted: Any = rows(TaskExecution).filter(**conditions).values("task_path", "task_name").annotate(**counts)
    return {
        (row["task_path"], row["task_name"]): {state: row[state] for state in states}
        async for row in counted.order_by()
    }


def _stuck(before: datetime, now: datetime) -> Rows:
    """Tries that have run since before then."""
    is_looked_after = Q(lease_until__isnull=False) | Q(started_at__gte=now - LONGEST_DELIVERY)
    running = rows(TaskExecutionTry).filter(TryState.RUNNING.condition())
    return running.filter(is_looked_after, started_at__lt=before)


async def _pending_since(now: datetime, paused: Collection[str]) -> tuple[datetime | None, bool]:
    """The instant from which the longest waiting try could have run. Deferred tries are no backlog.

    Tries of paused queues wait on purpose. With MOST_OF_PAUSED of them before any other, no try behind them is
    looked at, and the second answer is True.
    """
    is_looked_after = Q(dispatch_at__isnull=False) | Q(asked_at__gte=now - LONGEST_DELIVERY)
    due_since = Coalesce("run_after", "asked_at", output_field=DateTimeField())
    waiting = rows(TaskExecutionTry).filter(TryState.PENDING.condition(), is_looked_after)
    oldest = waiting.order_by(due_since)
    if not paused:
        return await oldest.values_list(due_since, flat=True).afirst(), False
    seen = oldest.values_list(due_since, "task_execution__queue_name")[:MOST_OF_PAUSED]
    found = [(instant, queue_or_default(queue)) async for instant, queue in seen]
    others = (instant for instant, queue in found if queue not in paused)
    first = next(others, None)
    return first, first is None and len(found) == MOST_OF_PAUSED


async def _due_since(now: datetime) -> datetime | None:
    """The instant at which the first try fell due that was never published, and that no dispatcher has taken since."""
    # What was published once is due an hour later: so a backlog of these is not looked through.
    due = rows(TaskExecutionTry).filter(dispatch_at__lte=now, publish_count=0)
    return await due.order_by("dispatch_at").values_list("dispatch_at", flat=True).afirst()


def _broken_schedules(now: datetime) -> Rows:
    """The keys of schedules that can't be run. Beats repeat that each hour; a schedule without beats is forgotten."""
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


def _broker_problems(own: str | None, of_workers: Sequence[str]) -> Iterator[str]:
    """A warning only: workers find tries in the database that no message brings. A missing worker is reported apart."""
    for trouble in dict.fromkeys([*([own] if own else []), *of_workers]):
        yield f"broker unavailable: {trouble}"


def _paused_problems(pauses: Iterable[QueuePause], is_cut: bool) -> Iterator[str]:
    for pause in pauses:
        by = f" by {pause.paused_by}" if pause.paused_by else ""
        yield f"queue {pause.queue_name!r} is paused{by}, since {pause.paused_at:%Y-%m-%d %H:%M} UTC"
    if is_cut:
        yield f"the {MOST_OF_PAUSED} oldest tries are of paused queues: how long others wait is not known"


def _stalled_problem(stalled: int) -> Iterator[str]:
    if stalled > 0:
        yield f"{stalled} groups wait for members that were never enqueued: close() or cancel() them"

"""Signs that a worker, a dispatcher or a beat is missing: expected changes of rows that have not happened.

The workers' rows tell who lives. Workers of older versions keep none, so what they do is seen from the tries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.db.models import DateTimeField, Max, Q
from django.db.models.functions import Coalesce

from ..conf import get_config, queue_or_default
from ..models import (
    GroupSlice,
    ScheduleState,
    TaskExecutionResult,
    TaskExecutionTry,
    TaskSchedule,
    TryState,
    Worker,
    WorkerState,
)
from .database import Rows, rows
from .schedules import KnownSchedule, known_schedules
from .ticks import counts_from
from .workers import LATE, living_workers

REPUBLISH_LATE = timedelta(minutes=5)
"""Tries that are published again take a tenth of a dispatcher's pass only, so a long backlog delays them."""
SLICES_LATE = timedelta(minutes=5)
"""A dispatcher writes a thousand members of a large group in about a second."""
MOST_SHOWN = 10
MOST_COUNTED = 1000
_NOT_WORKERS = frozenset({"inline"})
"""The `worker_id` of tries that their caller ran itself."""
AT_WORK = "is a worker, or POST tasks-beat each minute, at work?"


async def troubles(now: datetime, paused: Collection[str] = ()) -> list[str]:
    """A sentence for each sign. The queues that are `paused` need no worker."""
    older_lives = await _an_older_worker_lives(now)
    found = [
        *await _waiting_without_a_worker(now, older_lives, paused),
        await _missing_dispatcher(now, older_lives),
        await _expired_leases(now),
        await _overdue_publishes(now),
        await _unwritten_members(now),
        *await sync_to_async(_missed_slots)(now, older_lives),
    ]
    return [problem for problem in found if problem]


async def _expired_leases(now: datetime) -> str:
    # A dispatcher that has just started waits for one lease before it ends any.
    patience = max(LATE, 2 * timedelta(seconds=get_config().settings.lease_seconds))
    expired = rows(TaskExecutionTry).filter(lease_until__lt=now - patience)
    count = await expired.order_by("lease_until")[:MOST_COUNTED].acount()
    return f"{count} leases of lost workers have expired, and no dispatcher has ended them: {AT_WORK}" if count else ""


async def _overdue_publishes(now: datetime) -> str:
    """The sentence about overdue publishes of tries that were published once, and that no worker has taken."""
    overdue = rows(TaskExecutionTry).filter(dispatch_at__lt=now - REPUBLISH_LATE, publish_count__gt=0)
    since = await overdue.order_by("dispatch_at").values_list("dispatch_at", flat=True).afirst()
    return f"a try has been due to be published again for {_seconds(now - since)}s: {AT_WORK}" if since else ""


async def _waiting_without_a_worker(now: datetime, older_lives: bool, paused: Collection[str]) -> list[str]:
    """The queues whose tries wait, though they were published, and that no process runs."""
    due_since = Coalesce("run_after", "asked_at", output_field=DateTimeField())
    unclaimed = rows(TaskExecutionTry).filter(TryState.PENDING.condition(), dispatch_at__isnull=False)
    waiting = unclaimed.filter(_reaches_a_worker(now)).order_by(due_since)
    since = await waiting.values_list(due_since, flat=True).afirst()
    if since is None or now - since <= LATE or older_lives:
        return []
    served = {*paused, *[name async for queues in _queues_of_the_living(now) for name in queues]}
    oldest: dict[str, datetime] = {}
    async for queue, instant in waiting.values_list("task_execution__queue_name", due_since)[:MOST_COUNTED]:
        oldest.setdefault(queue_or_default(queue), instant)
    return [
        f"rows wait and no worker lives: the oldest of queue {queue!r} has waited for {_seconds(now - instant)}s, and "
        "no process that runs it had a heartbeat lately. Is a worker running, or for a push queue the web process "
        "reached?"
        for queue, instant in [*oldest.items()][:MOST_SHOWN]
        if queue not in served and now - instant > LATE
    ]


def _reaches_a_worker(now: datetime) -> Q:
    """Tries that were published, and the due ones of queues without Pub/Sub, in which workers look by themselves."""
    config = get_config()
    names = [name for name, queue in config.queues.items() if queue.subscription_name is None]
    in_database = Q(task_execution__queue_name__in=names)
    if config.queue(None).name in names:
        in_database |= Q(task_execution__queue_name__isnull=True)
    is_due = Q(run_after__isnull=True) | Q(run_after__lte=now)
    return Q(publish_count__gt=0) | (in_database & is_due if names else Q(pk__in=[]))


def _queues_of_the_living(now: datetime) -> Rows:
    return living_workers(now).filter(state=WorkerState.RUNNING).values_list("queues", flat=True)


async def _missing_dispatcher(now: datetime, older_lives: bool) -> str:
    """Silent while no process of this version has dispatched: then due tries that are unpublished tell."""
    latest = (await rows(Worker).aaggregate(latest=Max("dispatched_at")))["latest"]
    if latest is None or now - latest <= LATE or older_lives:
        return ""
    return f"no dispatcher for {_seconds(now - latest)}s: {AT_WORK}"


async def _an_older_worker_lives(now: datetime) -> bool:
    """Whether a process that keeps no row, as those of older versions, runs a try or has just ended one."""
    known = rows(Worker).values("id")
    unknown = Q(worker_id__isnull=True) | ~Q(worker_id__in=[*_NOT_WORKERS]) & ~Q(worker_id__in=known)
    if await rows(TaskExecutionTry).filter(unknown, lease_until__gte=now).aexists():
        return True
    latest = await rows(TaskExecutionResult).order_by("-pk").values_list("created_at", "task_execution_try").afirst()
    if latest is None or latest[0] < now - LATE:
        return False
    worker_id = await rows(TaskExecutionTry).filter(pk=latest[1]).values_list("worker_id", flat=True).afirst()
    if worker_id is None:
        return True
    return worker_id not in _NOT_WORKERS and not await rows(Worker).filter(pk=worker_id).aexists()


async def _unwritten_members(now: datetime) -> str:
    """The sentence about unwritten members of large groups, which a dispatcher writes slice by slice."""
    since = await rows(GroupSlice).order_by("pk").values_list("created_at", flat=True).afirst()
    if since is None or now - since <= SLICES_LATE:
        return ""
    return f"members of a large group have waited for {_seconds(now - since)}s to be enqueued: {AT_WORK}"


def _missed_slots(now: datetime, older_lives: bool) -> list[str]:
    """The schedules whose slots have come and were not enqueued. Broken ones say so themselves."""
    schedules = [schedule for schedule in known_schedules() if schedule.enabled]
    if not schedules:
        return []
    states = {state.schedule_key: state for state in rows(ScheduleState).all()}
    made = dict(rows(TaskSchedule).values_list("pk", "created_at"))
    a_beat_lives = any(state.handled_until and state.handled_until >= now - LATE for state in states.values())
    problems = (
        problem
        for schedule in schedules
        for problem in _missed(schedule, states.get(schedule.key), made, a_beat_lives, now)
    )
    shown = [problem for problem, _ in zip(problems, range(MOST_SHOWN), strict=False)]
    return [*([] if older_lives else _missing_beat(now)), *shown] if shown else []


def _missing_beat(now: datetime) -> list[str]:
    """Asked only when schedules are due. Silent as long as no process of this version has beaten."""
    latest = rows(Worker).aggregate(latest=Max("beat_at"))["latest"]
    if latest is None or now - latest <= LATE:
        return []
    return [f"no beat for {_seconds(now - latest)}s while schedules are due: {AT_WORK}"]


def _missed(
    schedule: KnownSchedule,
    state: ScheduleState | None,
    made: dict[int, datetime],
    a_beat_lives: bool,
    now: datetime,
) -> Iterator[str]:
    if state is None and schedule.row_id not in made:
        if not a_beat_lives:
            yield f"no beat has seen the schedule {schedule.key!r} yet: {AT_WORK}"
        return
    if state is not None and state.last_error:
        return
    slot = _next_slot(schedule, state, made, now)
    if slot is not None and slot < now - LATE:
        yield f"schedule {schedule.key!r} has missed its slot of {slot:%Y-%m-%d %H:%M} UTC: {AT_WORK}"


def _next_slot(
    schedule: KnownSchedule, state: ScheduleState | None, made: dict[int, datetime], now: datetime
) -> datetime | None:
    """The first slot that no beat has handled; None without any, or where the schedule can't be read."""
    try:
        after = made[schedule.row_id or 0] if state is None else counts_from(state, now)
        return next(schedule.crontab().between(after), None)
    except Exception:  # a beat notes it as the schedule's error
        return None


def _seconds(age: Any) -> int:
    return int(age.total_seconds())

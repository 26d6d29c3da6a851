"""Ticks: each slot of each schedule is enqueued once, however many beats there are.

A beat locks the schedule's state, and writes a tick for each due slot in the transaction that writes its execution;
the ticks' unique key holds where the lock does not reach (a state that was deleted and made anew).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from ..clock import SYSTEM_CLOCK
from ..conf import get_config
from ..crontab import Due, due
from ..models import ScheduleState, ScheduleTick, TaskExecutionTry
from ..registry import TaskSpec
from .database import Rows, alias, atomic, database_time, locked, rows, with_database_time
from .enqueue import NewExecution, insert
from .keys import KeyRequest, argument_key, insert_once
from .schedules import KnownSchedule

MINUTE = timedelta(minutes=1)
ERROR_IS_SAID_AGAIN = timedelta(hours=1)

Call = tuple[NewExecution, TaskSpec]


@dataclass(frozen=True, slots=True)
class Ticked:
    """What one schedule's due slots led to. Of the tries, those that are new: a `unique` task may be there already."""

    slots: Sequence[datetime]
    tries: Sequence[TaskExecutionTry]
    is_cut: bool


class _Outrun(Exception):
    """Another beat has written one of the slots meanwhile."""


def minute_of(instant: datetime) -> datetime:
    """The instant's whole minute. Slots are whole minutes."""
    return instant.replace(second=0, microsecond=0)


def counts_from(state: ScheduleState) -> datetime:
    """Slots later than this are still to be handled. A schedule counts from the minute in which it was first seen."""
    return state.handled_until or minute_of(state.first_seen) - MINUTE


def read_states(
    schedules: Sequence[KnownSchedule], *, now: datetime | None = None
) -> tuple[dict[str, ScheduleState], datetime]:
    """The schedules' states by key, made where there is none, and the time: the database's, unless `now` is given.

    A schedule that was deleted meanwhile has none.
    """
    states = _states(schedules)
    missing = [schedule for schedule in schedules if schedule.key not in states]
    if missing:
        first_seen = Now() if now is None else now
        rows(ScheduleState).bulk_create(
            [
                ScheduleState(schedule_key=schedule.key, schedule_id=schedule.row_id, first_seen=first_seen)
                for schedule in missing
            ],
            ignore_conflicts=True,
        )
        states = _states(schedules)
    return states, now or max(map(database_time, states.values()), default=SYSTEM_CLOCK.now())


def due_now(schedule: KnownSchedule, state: ScheduleState, until: datetime) -> Due:
    """The slots that are to be run now. Raises ScheduleError."""
    after = counts_from(state)
    if minute_of(until) <= after:
        return Due([])
    return due(schedule.crontab(), after, until, schedule.catch_up)


def tick(schedule: KnownSchedule, call: Call, state_id: int, until: datetime) -> Ticked | None:
    """Enqueue the schedule's slots that are due at `until`, each exactly once, and note that they are.

    None: another beat is at it. Raises ScheduleError.
    """
    try:
        with transaction.atomic(using=alias()):  # with a savepoint: what one schedule breaks must not harm the next
            state = locked(rows(ScheduleState).filter(pk=state_id), wait=False).first()
            return None if state is None else _tick(schedule, call, state, until)
    except _Outrun:
        return None


def run_now(schedule: KnownSchedule, now: datetime) -> list[TaskExecutionTry]:
    """Enqueue the schedule's call at once, due or not, enabled or not, as a tick of its own.

    Gives what there is to publish: nothing, when the task is `unique` and unfinished. Raises ScheduleError.
    """
    call = schedule.call()
    with transaction.atomic(using=alias()):
        task_try, is_new = _enqueue(call)
        rows(ScheduleTick).create(schedule_key=schedule.key, slot=now, execution_id=task_try.task_execution_id)
    return [task_try] if is_new else []


def note_handled(states: Iterable[ScheduleState], until: datetime) -> None:
    """Nothing of these is due at `until` any more. The time never goes back."""
    minute = minute_of(until)
    behind = [state.pk for state in states if state.handled_until is None or state.handled_until < minute]
    if behind:
        earlier = Q(handled_until__isnull=True) | Q(handled_until__lt=minute)
        _update(rows(ScheduleState).filter(earlier, pk__in=behind), handled_until=minute)


def note_error(state: ScheduleState, error: str, now: datetime) -> bool:
    """Keep why the schedule can't be run, for health, which forgets what is not said again; "": it can.

    True: it is time to tell people, too.
    """
    stale = error and (state.last_error_at is None or state.last_error_at < now - ERROR_IS_SAID_AGAIN)
    if state.last_error == error and not stale:
        return False
    stamp = Now() if error else None
    return _update(rows(ScheduleState).filter(pk=state.pk), last_error=error, last_error_at=stamp) > 0


def _update(states: Rows, **values: Any) -> int:
    """Without those that somebody else has locked: neither a beat nor a user's long transaction is waited for."""
    with atomic():
        free = [state.pk for state in locked(states, wait=False)]
        return rows(ScheduleState).filter(pk__in=free).update(**values)


def _states(schedules: Iterable[KnownSchedule]) -> dict[str, ScheduleState]:
    states = rows(ScheduleState).filter(schedule_key__in=[schedule.key for schedule in schedules])
    return {state.schedule_key: state for state in with_database_time(states)}


def _tick(schedule: KnownSchedule, call: Call, state: ScheduleState, until: datetime) -> Ticked:
    found = due_now(schedule, state, until)
    ticks = rows(ScheduleTick).filter(schedule_key=schedule.key, slot__in=found.slots)
    written = set(ticks.values_list("slot", flat=True)) if found.slots else set()
    slots = [slot for slot in found.slots if slot not in written]
    answers = _enqueue_all(call, len(slots))
    executions = [task_try.task_execution_id for task_try, _ in answers]
    rows(ScheduleTick).bulk_create(
        [
            ScheduleTick(schedule_key=schedule.key, slot=slot, execution_id=execution)
            for slot, execution in zip(slots, executions, strict=True)
        ],
        ignore_conflicts=True,
    )
    if slots and ticks.filter(slot__in=slots, execution__in=set(executions)).count() < len(slots):
        raise _Outrun
    note_handled([state], until)
    return Ticked(slots, [task_try for task_try, is_new in answers if is_new], found.is_cut)


def _enqueue_all(call: Call, count: int) -> list[tuple[TaskExecutionTry, bool]]:
    new_execution, spec = call
    if spec.options.unique:
        return [_enqueue(call) for _ in range(count)]
    return [(task_try, True) for task_try in _insert(new_execution, count)]


def _enqueue(call: Call) -> tuple[TaskExecutionTry, bool]:
    """The try of one call, and True; for a `unique` task perhaps the one that is unfinished already, and False."""
    new_execution, spec = call
    if not spec.options.unique:
        return _insert(new_execution, 1)[0], True
    key = argument_key(spec.module_name, spec.func_name, new_execution.args, new_execution.kwargs)
    request = KeyRequest(key, SYSTEM_CLOCK.new_uuid7(), None)
    return insert_once(request, lambda: _insert(new_execution, 1)[0], now=SYSTEM_CLOCK.now())


def _insert(call: NewExecution, count: int) -> list[TaskExecutionTry]:
    grace = get_config().settings.publish_grace_seconds
    return insert([call] * count, now=SYSTEM_CLOCK.now(), grace_seconds=grace)

"""Ticks: each slot of each schedule is enqueued once, however many beats there are.

A beat locks the schedule's state, and writes a tick for each due slot in the transaction that writes its execution.
The unique key of the ticks protects the one case that the lock does not: a state that was deleted and made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError
from django.db.models import Q

from ..core.crontab import Due, due
from ..exceptions import StoreUnavailable
from ..models import ScheduleState, ScheduleTick, TaskExecutionTry
from ..registry import TaskSpec, load
from .database import DATABASE_TIME, Instant, Rows, atomic, database_time, locked, rows, with_database_time
from .enqueue import NewExecution, enqueue
from .lock_timeout import NO_WAIT, attempted, short_locks
from .schedules import KnownSchedule

MINUTE = timedelta(minutes=1)
ERROR_IS_SAID_AGAIN = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Ticked:
    """The due slots of one schedule, and the new tries. A slot of a `unique` task that is unfinished has no new try."""

    slots: Sequence[datetime]
    tries: Sequence[TaskExecutionTry]
    is_cut: bool


class _Outrun(Exception):
    """Another beat has written one of the slots at the same time."""


def minute_of(instant: datetime) -> datetime:
    """The instant's whole minute. Slots are whole minutes."""
    return instant.replace(second=0, microsecond=0)


def counts_from(state: ScheduleState, now: datetime) -> datetime:
    """The instant after which slots are to be handled; at first, the minute before the schedule was first seen."""
    counted = state.handled_until or minute_of(state.first_seen) - MINUTE
    if state.changed_at is None or state.changed_at > now:
        return counted
    return max(counted, minute_of(state.changed_at))


def read_states(
    schedules: Sequence[KnownSchedule], *, now: Instant = DATABASE_TIME
) -> tuple[dict[str, ScheduleState], datetime | None]:
    """The schedules' states by key, and `now` as an instant, which is None when no schedule has a state.

    A missing state is written, except for a schedule whose row is deleted or locked at the same time.
    """
    states = _states(schedules, now)
    missing = [schedule for schedule in schedules if schedule.key not in states]
    if missing:
        for schedule in missing:
            state = ScheduleState(schedule_key=schedule.key, schedule_id=schedule.row_id, first_seen=now)
            # IntegrityError: its row was deleted just now.
            with suppress(StoreUnavailable, IntegrityError), short_locks(NO_WAIT):
                rows(ScheduleState).bulk_create([state], ignore_conflicts=True)
        states = _states(schedules, now)
    return states, max(map(database_time, states.values()), default=None)


def due_now(schedule: KnownSchedule, state: ScheduleState, until: datetime) -> Due:
    """The slots to run now. Raises ScheduleError."""
    after = counts_from(state, until)
    if minute_of(until) <= after:
        return Due([])
    return due(schedule.crontab(), after, until, schedule.catch_up)


def tick(schedule: KnownSchedule, call: NewExecution, state_id: int, until: datetime) -> Ticked | None:
    """Enqueue the schedule's slots that are due at `until`, each exactly once, and note that they are.

    None: another beat is handling the schedule, or another transaction has locked what is needed; the slots stay due.
    Raises ScheduleError.
    """
    try:
        with short_locks(NO_WAIT):  # in a savepoint: an error of one schedule leaves the others alone
            state = locked(rows(ScheduleState).filter(pk=state_id), wait=False).first()
            return None if state is None else _tick(schedule, call, state, until)
    except (_Outrun, StoreUnavailable):
        return None


def run_now(
    schedule: KnownSchedule, now: datetime, find_task: Callable[[str, str], TaskSpec] = load
) -> list[TaskExecutionTry]:
    """Enqueue the schedule's call now, whether or not it is due or enabled, with a tick of its own.

    Gives the tries to publish: none when the task is `unique` and unfinished. Raises ScheduleError; and, like a call
    of a `unique` task, StoreUnavailable.
    """
    call = schedule.call(find_task)

    def write() -> list[TaskExecutionTry]:
        with atomic(savepoint=True):
            [(task_try, is_new)] = enqueue([_for_slot(call, now)], now=now)
            rows(ScheduleTick).create(schedule_key=schedule.key, slot=now, execution_id=task_try.task_execution_id)
        return [task_try] if is_new else []

    return attempted(write)


def note_handled(states: Iterable[ScheduleState], until: datetime) -> None:
    """Record that the slots up to `until` are handled. The recorded time never goes back."""
    minute = minute_of(until)
    behind = [state.pk for state in states if state.handled_until is None or state.handled_until < minute]
    if behind:
        earlier = Q(handled_until__isnull=True) | Q(handled_until__lt=minute)
        _update(rows(ScheduleState).filter(earlier, pk__in=behind), handled_until=minute)


def note_error(state: ScheduleState, error: str, now: datetime) -> bool:
    """Record why the schedule can't be run, or "" when it can. Health shows an error only while it is recorded again.

    True when the error is new, or was recorded longer than an hour ago, so that an event should tell of it.
    """
    stale = error and (state.last_error_at is None or state.last_error_at < now - ERROR_IS_SAID_AGAIN)
    if state.last_error == error and not stale:
        return False
    stamp = now if error else None
    return _update(rows(ScheduleState).filter(pk=state.pk), last_error=error, last_error_at=stamp) > 0


def _update(states: Rows, **values: Any) -> int:
    """Update the states that no other transaction has locked; never wait for a lock. Gives the number updated."""
    with atomic():
        free = [state.pk for state in locked(states, wait=False)]
        return rows(ScheduleState).filter(pk__in=free).update(**values)


def _states(schedules: Iterable[KnownSchedule], now: Instant) -> dict[str, ScheduleState]:
    states = rows(ScheduleState).filter(schedule_key__in=[schedule.key for schedule in schedules])
    return {state.schedule_key: state for state in with_database_time(states, now)}


def _tick(schedule: KnownSchedule, call: NewExecution, state: ScheduleState, until: datetime) -> Ticked:
    found = due_now(schedule, state, until)
    ticks = rows(ScheduleTick).filter(schedule_key=schedule.key, slot__in=found.slots)
    written = set(ticks.values_list("slot", flat=True)) if found.slots else set()
    slots = [slot for slot in found.slots if slot not in written]
    answers = enqueue([_for_slot(call, slot) for slot in slots], now=until, longest_wait=NO_WAIT)
    executions = [task_try.task_execution_id for task_try in answers.tries]
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


def _for_slot(call: NewExecution, slot: datetime) -> NewExecution:
    return replace(call, options={**call.options, "slot": slot.isoformat()})

"""The beat: when a schedule's slot has come, its task is enqueued.

Any number may run at once, in workers, as a command and through POST tasks-beat: the store lets each slot through
once. A pass reads all schedules anew, so that a change needs no restart.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, OperationalError, close_old_connections

from ..clock import SYSTEM_CLOCK, Clock
from ..looping import repeat_in_own_thread
from ..models import ScheduleState
from ..store.schedules import KnownSchedule, known_schedules
from ..store.ticks import Ticked, counts_from, due_now, minute_of, note_error, note_handled, read_states, tick
from ..telemetry import emit
from ..values import clean_text
from .launch import launch

LONGEST_WAIT_SECONDS = 10.0
"""A schedule that was added or enabled is seen after so long at the latest."""
OUTAGE_SECONDS = 1.0
EARLIEST = timedelta(minutes=1)
"""How far Cloud Scheduler's clock may be ahead of ours."""
SHOWN = 10
LONGEST_ERROR = 2000


class Beat:
    """One process's beat. `run` is the loop; `pass_once` is one turn of it, for whoever has no loop."""

    def __init__(self) -> None:
        self.is_down = False  # the last pass got no answer from the database

    async def run(self) -> None:
        """Pass after pass, until cancelled. The database is spoken to in a thread of its own."""
        await repeat_in_own_thread("i3tasks-beat", self.pass_once)

    def pass_once(self, now: datetime | None = None) -> float:
        """Enqueue what is due at `now`; by default, at the database's time. Gives the seconds until more may be due.

        Raises nothing: without an answer of the database it is `is_down`, and what was due is due in the next pass.
        """
        close_old_connections()
        try:
            wait = self._pass(now)
        except (DatabaseError, InterfaceError) as error:
            if not self.is_down:
                emit("beat_failed", error=str(error))
            self.is_down = True
            return OUTAGE_SECONDS
        except Exception as error:  # a bug; the loop goes on
            emit("internal_error", where="beat", error=repr(error), exc_info=error)
            return OUTAGE_SECONDS
        self.is_down = False
        return wait

    def _pass(self, now: datetime | None) -> float:
        schedules = known_schedules()
        if not schedules:
            return LONGEST_WAIT_SECONDS
        states, now = read_states(schedules, now=now)
        handled = [
            states[schedule.key]
            for schedule in schedules
            if schedule.key in states and self._is_handled(schedule, states[schedule.key], now)
        ]
        note_handled(handled, now)
        return _seconds_until_next(now)

    def _is_handled(self, schedule: KnownSchedule, state: ScheduleState, now: datetime) -> bool:
        """Do what one schedule needs. False: its state is not to be moved on, or is already."""
        if not schedule.enabled:
            note_error(state, "", now)
            return True
        if minute_of(now) <= counts_from(state):
            return False
        try:
            call = schedule.call()  # before it is due, so that what is broken is said early
            if not due_now(schedule, state, now).slots:
                note_error(state, "", now)
                return True
            ticked = tick(schedule, call, state.pk, now)
            if ticked is not None:
                _tell(schedule, ticked)
                note_error(state, "", now)
                launch(ticked.tries)
        except (OperationalError, InterfaceError):
            raise  # no fault of this schedule
        except Exception as error:
            # Its slots stay due, so that they are caught up with once it is mended.
            said = clean_text(str(error) or repr(error), LONGEST_ERROR)
            if note_error(state, said, now):
                emit("schedule_broken", schedule=schedule.key, error=said)
        return False


_beat = Beat()


async def beat_once(now: datetime | None = None) -> bool:
    """One pass for a request. False: the database gave no answer."""
    await sync_to_async(_beat.pass_once)(now)
    return not _beat.is_down


def scheduled_time(header: str | None, clock: Clock = SYSTEM_CLOCK) -> datetime | None:
    """The slot that Cloud Scheduler names in X-CloudScheduler-ScheduleTime; None without one that makes sense.

    One in the future is refused, because it would let schedules rest until it has come.
    """
    if not header:
        return None
    try:
        instant = datetime.fromisoformat(header)
        instant = instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        instant = None
    if instant is None or instant > clock.now() + EARLIEST:
        emit("schedule_time_refused", header=header[:100])
        return None
    return instant


def _seconds_until_next(now: datetime) -> float:
    """Until the next minute has begun, for certain."""
    return min(60.02 - now.second - now.microsecond / 1e6, LONGEST_WAIT_SECONDS)


def _tell(schedule: KnownSchedule, ticked: Ticked) -> None:
    if ticked.is_cut:
        emit("schedule_slots_dropped", schedule=schedule.key, kept=len(ticked.slots))
    if ticked.slots:
        emit(
            "schedule_ticked",
            schedule=schedule.key,
            slots=[slot.isoformat() for slot in ticked.slots[-SHOWN:]],
            executions=[task_try.task_execution_id for task_try in ticked.tries[-SHOWN:]],
        )

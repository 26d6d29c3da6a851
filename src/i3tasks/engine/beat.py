"""The beat: enqueues the tasks of schedules when their time has come.

Any number of beats may run at once, in workers, as a command and through POST tasks-beat: the store lets each slot of a
schedule through once. A pass reads all schedules again, so that a change needs no restart.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.db import DatabaseError, InterfaceError, OperationalError, connections

from ..core.clock import current_clock
from ..core.text import clean_text
from ..models import ScheduleState
from ..store.database import alias, in_transaction, is_contention, time_of
from ..store.schedules import KnownSchedule, known_schedules
from ..store.ticks import Ticked, counts_from, due_now, minute_of, note_error, note_handled, read_states, tick
from ..telemetry import emit
from ..threads.connections import look
from ..threads.looping import repeat_in_own_thread
from .launch import launch

LONGEST_WAIT_SECONDS = 10.0
"""The longest time until a schedule that was added or enabled is noticed."""
OUTAGE_SECONDS = 1.0
CONTENTION_SECONDS = 0.05
ATTEMPTS = 3
"""How often a pass is made when the database gives up on a lock. Slots that it has enqueued stay enqueued."""
EARLIEST = timedelta(seconds=30)
"""How far Cloud Scheduler's clock may be ahead of the database's."""
LATEST = timedelta(days=1)
"""How late a request of Cloud Scheduler may be."""
NO_ANSWER = "The database gave no answer. What is due stays due."
INTERNAL_ERROR = "The beat failed, and its log says why. What is due stays due."
SHOWN = 10
LONGEST_ERROR = 2000


class Beat:
    """The beat of a process. `run` is the loop; `pass_once` is one turn of it, for callers without a loop.

    `on_pass` is called after each pass that got through.
    """

    def __init__(self, on_pass: Callable[[], None] = lambda: None) -> None:
        self._on_pass = on_pass
        self.is_down = False  # the last pass got no answer from the database
        self.problem = ""  # why the last pass did not get through; "" if it did
        self._is_contended = False  # the database gave up on a lock, and something may be due still

    async def run(self) -> None:
        """Call `pass_once` again and again until cancelled, in a thread that has its own database connections."""
        await repeat_in_own_thread("i3tasks-beat", self.pass_once)

    def pass_once(self, now: datetime | None = None, *, scheduled: datetime | None = None) -> float:
        """Enqueue the tasks of the slots that are due at `now`, by default the database's time.

        `scheduled` is the time that Cloud Scheduler asked for, which counts instead if it is at most a day old.
        Returns the seconds until more may be due. Raises nothing: `problem` says what went wrong, and the slots stay
        due for the next pass.
        """
        if not in_transaction():  # a test's, which would be lost with its connection
            look()
        self.problem = ""
        try:
            wait = self._patient_pass(now, scheduled)
        except (DatabaseError, InterfaceError) as error:
            if not self.is_down:
                emit("beat_failed", error=str(error))
            self.is_down, self.problem = True, NO_ANSWER
            return OUTAGE_SECONDS
        except Exception as error:  # a bug in i3tasks; the loop goes on
            emit("internal_error", where="beat", error=repr(error), exc_info=error)
            self.problem = INTERNAL_ERROR
            return OUTAGE_SECONDS
        self.is_down = False
        self._on_pass()
        return wait

    def _patient_pass(self, now: datetime | None, scheduled: datetime | None) -> float:
        """Make a pass, and repeat it a few times when the database gives up on a lock, which is no outage."""
        wait = CONTENTION_SECONDS
        for _ in range(ATTEMPTS):
            self._is_contended = False
            try:
                wait = self._pass(now, scheduled)
            except DatabaseError as error:
                if not is_contention(error):
                    raise
                self._is_contended = True
            if not self._is_contended:
                return wait
        self.problem = NO_ANSWER
        return CONTENTION_SECONDS

    def _pass(self, now: datetime | None, scheduled: datetime | None) -> float:
        schedules = known_schedules()
        if not schedules:
            return LONGEST_WAIT_SECONDS
        states, now = read_states(schedules, now=time_of(current_clock()) if now is None else now)
        if now is None:  # the schedules were deleted meanwhile
            return LONGEST_WAIT_SECONDS
        until = _accepted(scheduled, now) or now
        handled = [
            states[schedule.key]
            for schedule in schedules
            if schedule.key in states and self._is_handled(schedule, states[schedule.key], until, now)
        ]
        note_handled(handled, until)
        return _seconds_until_next(now)

    def _is_handled(self, schedule: KnownSchedule, state: ScheduleState, until: datetime, now: datetime) -> bool:
        """Enqueue the due slots of one schedule. Returns whether the caller is to move its state on to `until`."""
        try:
            if not schedule.enabled:
                note_error(state, "", now)
                return True
            if minute_of(until) <= counts_from(state, until):
                return False
            call = schedule.call()  # before it is due, so that a broken schedule is reported early
            if not due_now(schedule, state, until).slots:
                note_error(state, "", now)
                return True
            ticked = tick(schedule, call, state.pk, until)
            if ticked is not None:
                _tell(schedule, ticked, until)
                note_error(state, "", now)
                launch(ticked.tries)
        except (OperationalError, InterfaceError) as error:
            if is_contention(error):
                self._is_contended = True
                return False
            if not connections[alias()].is_usable():
                raise
            # Not the schedule's fault, but for example a lock timeout: it stays due, and the others go on.
            emit("beat_failed", schedule=schedule.key, error=str(error))
            self.problem = NO_ANSWER
        except Exception as error:
            # Its slots stay due, so that they run once it is repaired.
            said = clean_text(str(error) or repr(error), LONGEST_ERROR)
            if note_error(state, said, now):
                emit("schedule_broken", schedule=schedule.key, error=said)
        return False


async def beat_once(scheduled: datetime | None = None, on_pass: Callable[[], None] = lambda: None) -> str:
    """Make one pass for a request. Returns the problem that stopped it; "" if there was none."""
    beat = Beat(on_pass)
    await sync_to_async(beat.pass_once)(scheduled=scheduled)
    return beat.problem


def scheduled_time(header: str | None) -> datetime | None:
    """Return the time in an X-CloudScheduler-ScheduleTime header; None if it is missing or can't be read."""
    if not header:
        return None
    try:
        instant = datetime.fromisoformat(header)
        return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        emit("schedule_time_refused", header=header[:100])
        return None


def _accepted(scheduled: datetime | None, now: datetime) -> datetime | None:
    """Return `scheduled`, or None if it is too far from `now`.

    A later time would stop the schedules until it has come; a much earlier one would run slots of long ago.
    """
    if scheduled is None or now - LATEST <= scheduled <= now + EARLIEST:
        return scheduled
    emit("schedule_time_refused", header=scheduled.isoformat())
    return None


def _seconds_until_next(now: datetime) -> float:
    """Return the seconds until the next minute has surely begun, at most LONGEST_WAIT_SECONDS."""
    return min(60.02 - now.second - now.microsecond / 1e6, LONGEST_WAIT_SECONDS)


def _tell(schedule: KnownSchedule, ticked: Ticked, now: datetime) -> None:
    if ticked.is_cut:
        emit("schedule_slots_dropped", schedule=schedule.key, kept=len(ticked.slots))
    if ticked.slots:
        emit(
            "schedule_ticked",
            schedule=schedule.key,
            slots=[slot.isoformat() for slot in ticked.slots[-SHOWN:]],
            executions=[task_try.task_execution_id for task_try in ticked.tries[-SHOWN:]],
            execution_uuids=[task_try.task_execution.uuid for task_try in ticked.tries[-SHOWN:]],
            cron=schedule.cron,
            time_zone=schedule.time_zone or django_settings.TIME_ZONE,
            lateness=max((now - ticked.slots[-1]).total_seconds(), 0.0),
        )

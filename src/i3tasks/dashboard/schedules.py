"""The page of the schedules of I3TASKS and of the database: their slots and executions, a switch, and run now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse

from ..core.clock import current_clock
from ..core.cron_words import in_words
from ..engine.launch import launch
from ..exceptions import ScheduleError, StoreUnavailable
from ..models import ScheduleState, ScheduleTick
from ..registry import registered
from ..store.database import rows, time_of
from ..store.lock_timeout import LONGEST_LOCK, short_locks
from ..store.schedules import KnownSchedule, known_schedules, switch_known
from ..store.ticks import run_now
from .access import board_act, board_page
from .answering import done, not_done
from .navigation import url
from .rendering import page

MOST = 200
SHOWN = 5
BUSY = "Nothing was changed: another transaction is changing this schedule. Try again."


@dataclass(frozen=True, slots=True)
class Tick:
    """A slot that was due, and the execution that it led to."""

    row: ScheduleTick

    @property
    def lateness(self) -> Any:
        return self.row.created_at - self.row.slot

    @property
    def outcome(self) -> str:
        execution = self.row.execution
        return "deleted" if execution is None else execution.outcome or "unfinished"


@dataclass(frozen=True, slots=True)
class ScheduleLine:
    """One schedule of the page."""

    schedule: KnownSchedule
    words: str
    zone: str
    problem: str
    next_slots: Sequence[str]
    ticks: Sequence[Tick]

    @property
    def task(self) -> str:
        return f"{self.schedule.module_name}.{self.schedule.func_name}"

    @property
    def origin(self) -> str:
        return "I3TASKS" if self.schedule.row_id is None else "database"


@board_page
def schedules(request: HttpRequest) -> HttpResponse:
    """Show the schedules."""
    now = current_clock().now()
    known = known_schedules()
    shown = known[:MOST]
    return page(request, "schedules", "schedules", lines=list(_lines(shown, now)), most=MOST, is_cut=len(known) > MOST)


def _lines(shown: Sequence[KnownSchedule], now: datetime) -> Iterable[ScheduleLine]:
    keys = [schedule.key for schedule in shown]
    states = {state.schedule_key: state for state in rows(ScheduleState).filter(schedule_key__in=keys)}
    for schedule in shown:
        state = states.get(schedule.key)
        slots, problem = _coming(schedule, now)
        ticks = rows(ScheduleTick).filter(schedule_key=schedule.key).select_related("execution").order_by("-slot")
        yield ScheduleLine(
            schedule=schedule,
            words=in_words(str(schedule.cron)),
            zone=schedule.time_zone or django_settings.TIME_ZONE,
            problem=problem or (state.last_error if state is not None else ""),
            next_slots=slots,
            ticks=[Tick(tick) for tick in ticks[:SHOWN]],
        )


def _coming(schedule: KnownSchedule, now: datetime) -> tuple[list[str], str]:
    """The next slots in the schedule's time zone, and why there are none."""
    try:
        crontab = schedule.crontab()
    except ScheduleError as error:
        return [], str(error)
    if not schedule.enabled:
        return [], ""
    slots = islice(crontab.between(now), SHOWN)
    return [slot.astimezone(crontab.zone).strftime("%a %Y-%m-%d %H:%M %Z") for slot in slots], ""


@board_act
def switch_schedule(request: HttpRequest) -> HttpResponse:
    """Switch the schedule that the form names on or off."""
    schedule, enabled = _named(request), request.POST.get("enabled") == "1"
    if schedule is None:
        return not_done(request, "There is no such schedule.", url("schedules"))
    try:
        with short_locks(LONGEST_LOCK, BUSY):
            is_changed = switch_known(schedule, enabled=enabled, now=time_of(current_clock()))
    except (ScheduleError, StoreUnavailable) as error:
        return not_done(request, str(error), url("schedules"))
    word = "on" if enabled else "off"
    said = f"{schedule.key} is {word}." if is_changed else f"{schedule.key} was {word} already."
    return done(request, f"switch schedule {word}", schedule.key, int(is_changed), said, url("schedules"))


@board_act
def run_schedule(request: HttpRequest) -> HttpResponse:
    """Enqueue the call of the schedule that the form names now."""
    schedule = _named(request)
    if schedule is None:
        return not_done(request, "There is no such schedule.", url("schedules"))
    try:
        tries = run_now(schedule, current_clock().now(), registered)
    except (ScheduleError, StoreUnavailable) as error:
        return not_done(request, f"{schedule.key} was not enqueued: {error}", url("schedules"))
    launch(tries)
    said = f"{schedule.key} is enqueued." if tries else f"{schedule.key} is under way already, and its task is unique."
    return done(request, "run schedule", schedule.key, len(tries), said, url("schedules"))


def _named(request: HttpRequest) -> KnownSchedule | None:
    key = request.POST.get("schedule", "")
    return next((schedule for schedule in known_schedules() if schedule.key == key), None)

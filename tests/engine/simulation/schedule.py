"""One schedule: its world, what goes wrong in it, and the way back to rest."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import datetime

from django.db import connection, transaction

from i3tasks.core.clock import Clock
from i3tasks.models import (
    GroupSlice,
    QueuePause,
    TaskExecution,
    TaskExecutionResult,
    TaskExecutionTry,
    TaskGroup,
    TaskKey,
)
from i3tasks.store.pauses import known_pauses, pause, resume

from .bodies import ledger
from .broker import DEADLY, Broker, Faults
from .calls import Calls
from .checks import Books, check_audit, check_rest
from .process import Process
from .timeline import Timeline

CALM_AFTER = {"small": 15.0, "large": 30.0}
"""Virtual seconds of faults; then the world is well, and must come to rest by itself."""
AT_REST_BEFORE = 3600.0
TABLES = [
    model._meta.db_table
    for model in (GroupSlice, QueuePause, TaskKey, TaskExecutionResult, TaskExecutionTry, TaskExecution, TaskGroup)
]


def some_faults(chance: random.Random) -> Faults:
    """Each kind of fault is on in half of the schedules, as likely as not as a plague; in a third, none is deadly."""

    def some(highest: float) -> float:
        return chance.random() * highest if chance.random() < 0.5 else 0.0

    faults = Faults(
        publish_fails=some(0.5),
        publish_unanswered=some(0.5),
        message_lost=some(0.5),
        message_doubled=some(0.5),
        all_forgotten=some(0.2),
        falls_silent=some(0.2),
        all_late=some(40.0),
        ack_lost=some(0.5),
        process_dies=some(0.04),
        process_freezes=some(0.04),
        process_stops=some(0.04),
        database_away=some(0.3),
        reply_lost=some(0.6),
        row_held=some(0.4),
        loop_blocks=some(0.02),
        clocks_differ=some(20.0),
    )
    return replace(faults, **dict.fromkeys(DEADLY, 0.0)) if chance.random() < 0.33 else faults


class Schedule:
    """What one seed makes of it. `run` raises AssertionError where a promise is broken."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.timeline = Timeline(self.chance)
        self.broker = Broker(self.timeline, some_faults(self.chance))
        self.calls = Calls(self.broker)
        self.handed_back: Counter[int] = Counter()  # by try
        self._processes: list[Process] = []
        self._paused: list[tuple[datetime, datetime]] = []
        self._numbers = iter(range(10**9))
        self._falls_back = self.chance.random() < 0.5  # else only messages bring tries
        ledger.__init__(chance=self.chance, haste=self.chance.choice([6, 6, 2]))  # type: ignore[misc]

    def run(self) -> None:
        size = "large" if self.chance.random() < 0.2 else "small"  # most of what goes wrong does so among few
        processes, calls = {"small": (1, 1), "large": (self.chance.randint(1, 3), self.chance.randint(2, 4))}[size]
        for _ in range(processes):
            self._start_process()
        for _ in range(calls):
            self.calls.plan(self.calls.ask, self.chance.uniform(0, 5))
        for _ in range(self.chance.randint(0, 2)):
            self.calls.plan(self.calls.meddle, self.chance.uniform(0, 10))
        if self.chance.random() < 0.3:
            self.calls.plan(self._pause, self.chance.uniform(0, 8))
        if self.calls.is_cleaned:
            for act in self.chance.choices([self.calls.clean, self.calls.retry], k=6):
                self.calls.plan(act, self.chance.uniform(2, 40))
        self.timeline.after(CALM_AFTER[size], self._calm_down)
        try:
            self._until_at_rest()
        finally:
            for process in self._processes:
                process.loop.kill()  # its next step may be one that was never begun
        assert not self.broker.breaches, self.broker.breaches
        for process in self._processes:
            assert not process.loop.errors, process.loop.errors
        self._check_pauses()
        if self.calls.is_cleaned:
            check_rest()
        else:
            check_audit(self.timeline.now)
            Books(self.calls, self.handed_back).check()

    @property
    def fingerprint(self) -> tuple[int, float, float]:
        """Differs wherever two runs did."""
        chance = random.Random()
        chance.setstate(self.chance.getstate())
        return self.timeline.steps, self.timeline.seconds, chance.random()

    def _pause(self) -> None:
        pause("default", now=self.timeline.now)
        since = self.timeline.now

        def end() -> None:
            resume("default")
            self._paused.append((since, self.timeline.now))

        self.calls.plan(end, self.chance.uniform(0.1, 10))

    def _check_pauses(self) -> None:
        for since, until in self._paused:
            begun = TaskExecutionTry.objects.filter(started_at__gt=since, started_at__lt=until)
            assert not begun, f"begun while their queue was paused: {list(begun)}"

    def _start_process(self) -> None:
        number = next(self._numbers)
        self._processes.append(
            Process(self.timeline, self.broker, number, self._replace_later, self.handed_back, self._falls_back)
        )

    def _replace_later(self) -> None:
        self.timeline.after(self.chance.uniform(0.1, 10), self._start_process)

    def _calm_down(self) -> None:
        self.broker.faults = Faults()
        self.broker.silent_until = 0.0

    def _until_at_rest(self) -> None:
        look_at = 0.0
        while self.timeline.step():
            if self.timeline.seconds >= look_at:
                look_at = self.timeline.seconds + 5
                self.calls.note_ends()
                if self.timeline.seconds > 10 and self._is_at_rest():
                    return
                assert self.timeline.seconds < AT_REST_BEFORE, "never comes to rest"

    def _is_at_rest(self) -> bool:
        """No caller is going to call, nothing is to be done, and no message is on its way."""
        if self.calls.planned or self.broker.open:
            return False
        return not TaskExecutionTry.objects.filter(is_completed=False).exists() and not GroupSlice.objects.exists()


CALLERS_CLOCK = Clock(
    now=lambda: Process.current.clock.now(),
    monotonic=lambda: Process.current.timeline.seconds,
    random=lambda: Process.current.timeline.chance.random(),
    random_bytes=lambda count: Process.current.timeline.chance.randbytes(count),
    database_now=lambda: Process.current.timeline.now,
)
"""The clock of code that is passed none: that of the process whose code runs now."""


def forget_everything() -> None:
    """Cheaper than a fresh database: there are only a few rows."""
    with transaction.atomic(), connection.cursor() as cursor:  # foreign keys are checked at its end
        for table in TABLES:
            cursor.execute(f"DELETE FROM {table}")
        cursor.execute("DELETE FROM sqlite_sequence")  # the same ids, or sets of them have another order


def simulate(seed: int) -> Schedule:
    """Run the schedule of `seed` to its end."""
    forget_everything()
    known_pauses.forget()
    schedule = Schedule(seed)
    schedule.run()
    return schedule

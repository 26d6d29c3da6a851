"""One schedule: its world, what goes wrong in it, and the way back to rest."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from django.db import connection, transaction

from i3tasks.clock import SYSTEM_CLOCK
from i3tasks.models import TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup, TaskKey

from .bodies import ledger
from .broker import DEADLY, Broker, Faults
from .calls import Calls
from .checks import Books, check_audit
from .process import Process
from .timeline import Timeline

CALM_AFTER = {"small": 15.0, "large": 30.0}
"""Virtual seconds of faults; then the world is well, and must come to rest by itself."""
AT_REST_BEFORE = 3600.0
TABLES = [model._meta.db_table for model in (TaskKey, TaskExecutionResult, TaskExecutionTry, TaskExecution, TaskGroup)]


def some_faults(chance: random.Random) -> Faults:
    """Each kind of fault is on in half of the schedules, as likely as not as a plague; in a third, none is deadly."""

    def some(highest: float) -> float:
        return chance.random() * highest if chance.random() < 0.5 else 0.0

    faults = Faults(
        publish_fails=some(0.5),
        publish_unanswered=some(0.5),
        message_lost=some(0.5),
        message_doubled=some(0.5),
        ack_lost=some(0.5),
        process_dies=some(0.04),
        process_freezes=some(0.04),
        process_stops=some(0.04),
        database_away=some(0.3),
        reply_lost=some(0.6),
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
        self._numbers = iter(range(10**9))
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
        self.timeline.after(CALM_AFTER[size], self._calm_down)
        self._until_at_rest()
        assert not self.broker.breaches, self.broker.breaches
        check_audit(self.timeline.now)
        for process in self.broker.receivers:
            assert not process.loop.errors, process.loop.errors
        Books(self.calls, self.handed_back).check()

    @property
    def fingerprint(self) -> tuple[int, float, float]:
        """Differs wherever two runs did."""
        chance = random.Random()
        chance.setstate(self.chance.getstate())
        return self.timeline.steps, self.timeline.seconds, chance.random()

    def _start_process(self) -> None:
        Process(self.timeline, self.broker, next(self._numbers), self._replace_later, self.handed_back)

    def _replace_later(self) -> None:
        self.timeline.after(self.chance.uniform(0.1, 10), self._start_process)

    def _calm_down(self) -> None:
        self.broker.faults = Faults()

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
        """Nobody is going to call, nothing is to be done, and no message is on its way."""
        if self.calls.planned or self.broker.open:
            return False
        return not TaskExecutionTry.objects.filter(is_completed=False).exists()


@contextmanager
def on_virtual_time() -> Iterator[None]:
    """Turn the system's clock, which callers outside of the engine use, into that of the simulation."""
    names = ("now", "monotonic", "random", "random_bytes")
    before = {name: getattr(SYSTEM_CLOCK, name) for name in names}
    timeline = lambda: Process.current.timeline  # noqa: E731
    virtual = {
        "now": lambda: timeline().now,
        "monotonic": lambda: timeline().seconds,
        "random": lambda: timeline().chance.random(),
        "random_bytes": lambda count: timeline().chance.randbytes(count),
    }
    for name in names:
        object.__setattr__(SYSTEM_CLOCK, name, virtual[name])
    try:
        yield
    finally:
        for name in names:
            object.__setattr__(SYSTEM_CLOCK, name, before[name])


def forget_everything() -> None:
    """Cheaper than a fresh database: there are only a few rows."""
    with transaction.atomic(), connection.cursor() as cursor:  # foreign keys are checked at its end
        for table in TABLES:
            cursor.execute(f"DELETE FROM {table}")
        cursor.execute("DELETE FROM sqlite_sequence")  # the same ids, or sets of them have another order


def simulate(seed: int) -> Schedule:
    """Run the schedule of `seed` to its end."""
    forget_everything()
    schedule = Schedule(seed)
    schedule.run()
    return schedule

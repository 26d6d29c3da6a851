"""One schedule: what is asked for, what goes wrong, and what must be so when it is over."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Count, F, Value

from i3tasks import RESULT, RetryPolicy, chain, group, task
from i3tasks.clock import SYSTEM_CLOCK
from i3tasks.models import TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup
from i3tasks.store.audit import audit

from .broker import Broker, Faults
from .process import Process
from .timeline import Timeline

CALM_AFTER = 30.0
"""Virtual seconds of faults; then the world is well, and must come to rest by itself."""
AT_REST_BEFORE = 3600.0
MANY = 1000  # retries, so that only a task that wants to fails


class Wanted(Exception):
    """A failure that the task is meant to have."""


@dataclass
class Ledger:
    """What bodies did: they run in this process, so it survives every simulated death."""

    begun: Counter[int] = field(default_factory=Counter)  # by try
    begun_execution: Counter[int] = field(default_factory=Counter)
    chance: random.Random = field(default_factory=random.Random)

    def begin(self, metadata: Any) -> None:
        self.begun[metadata.task_execution_try_id] += 1
        self.begun_execution[metadata.task_execution_id] += 1


ledger = Ledger()


async def _take_time() -> None:
    """Mostly short, at times longer than a lease."""
    seconds = ledger.chance.random() ** 6 * 20
    if seconds > 0.01:
        await asyncio.sleep(seconds)


@task(bind=True, max_retries=MANY)
async def work(value: Any = None, task_metadata: Any = None) -> Any:
    ledger.begin(task_metadata)
    await _take_time()
    return value


@task(bind=True, max_retries=MANY)
async def stumble(times: int, task_metadata: Any = None) -> int:
    """Fails that many times."""
    ledger.begin(task_metadata)
    await _take_time()
    if task_metadata.try_number <= times:
        raise Wanted
    return times


@task(bind=True, max_retries=0)
async def fail(task_metadata: Any = None) -> None:
    ledger.begin(task_metadata)
    await _take_time()
    raise Wanted


@task(bind=True, max_retries=MANY)
async def mourn(failed_execution_id: int, task_metadata: Any = None) -> int:
    ledger.begin(task_metadata)
    return failed_execution_id


def _one() -> None:
    work.delay("one")


def _stumbling() -> None:
    stumble.delay(ledger.chance.randint(1, 3))


def _stumbling_without_a_wait() -> None:
    at_once = RetryPolicy(max_retries=MANY, base_seconds=0)
    stumble.using(retry=at_once).delay(ledger.chance.randint(1, 3))


def _failing() -> None:
    fail.using(on_failure=mourn).delay()


def _deferred() -> None:
    work.using(run_after=ledger.chance.uniform(1, 20)).delay("later")


def _chained() -> None:
    chain(work.s(1), stumble.s(1), work.s(RESULT)).delay()


def _grouped() -> None:
    members = [work.s(number) for number in range(ledger.chance.randint(1, 4))]
    group(*members).then(work.s(RESULT)).delay()


def _group_that_fails() -> None:
    group(work.s(1), fail.s(), wait_for_all=ledger.chance.random() < 0.5).then(work.s(RESULT)).otherwise(mourn).delay()


def _nested() -> None:
    chain(work.s(1), group(chain(work.s(2), work.s(3)), work.s(4)), work.s(RESULT)).delay()


WORKFLOWS: list[Callable[[], None]] = [
    *(_one, _stumbling, _stumbling_without_a_wait, _failing, _deferred, _chained, _grouped, _group_that_fails, _nested),
]


def some_faults(chance: random.Random) -> Faults:
    """Each kind of fault is on in half of the schedules, as likely as not to be a plague."""

    def some(highest: float) -> float:
        return chance.random() * highest if chance.random() < 0.5 else 0.0

    return Faults(
        publish_fails=some(0.5),
        publish_unanswered=some(0.5),
        message_lost=some(0.5),
        message_doubled=some(0.5),
        ack_lost=some(0.5),
        process_dies=some(0.04),
        process_freezes=some(0.04),
        process_stops=some(0.04),
        database_away=some(0.3),
        reply_lost=some(0.3),
    )


class Schedule:
    """What one seed makes of it. `run` raises AssertionError where a promise is broken."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.timeline = Timeline(self.chance)
        self.broker = Broker(self.timeline, some_faults(self.chance))
        self.handed_back: Counter[int] = Counter()  # by try
        self._numbers = iter(range(10**9))
        ledger.__init__(chance=self.chance)  # type: ignore[misc]

    def run(self) -> None:
        for _ in range(self.chance.randint(1, 2)):
            self._start_process()
        for _ in range(self.chance.randint(1, 3)):
            self.timeline.after(self.chance.uniform(0, 10), self._enqueue)
        self.timeline.after(CALM_AFTER, self._calm_down)
        self._until_at_rest()
        self._check()

    def _start_process(self) -> None:
        Process(self.timeline, self.broker, next(self._numbers), self._replace_later, self.handed_back)

    def _replace_later(self) -> None:
        self.timeline.after(self.chance.uniform(0.1, 10), self._start_process)

    def _enqueue(self) -> None:
        """In a process that lives, if there is one; its publishes die with it."""
        Process.current = self.chance.choice(self.broker.receivers) if self.broker.receivers else Process.current
        self.chance.choice(WORKFLOWS)()

    def _calm_down(self) -> None:
        self.broker.faults = Faults()

    def _until_at_rest(self) -> None:
        look_at = 0.0
        while self.timeline.step():
            if self.timeline.seconds >= look_at:
                look_at = self.timeline.seconds + 5
                if self.timeline.seconds > 10 and self._is_at_rest():
                    return
                assert self.timeline.seconds < AT_REST_BEFORE, "never comes to rest"

    def _is_at_rest(self) -> bool:
        """Nothing is to be done, and no message is on its way."""
        return not self.broker.open and not TaskExecutionTry.objects.filter(is_completed=False).exists()

    def _check(self) -> None:
        findings = audit(overdue=timedelta(0), now=Value(self.timeline.now))
        assert not findings, [str(finding) for finding in findings]
        assert not TaskExecution.objects.filter(outcome__isnull=True).exists(), "an execution has not ended"
        for process in self.broker.receivers:
            assert not process.loop.errors, process.loop.errors
        self._check_tries()
        self._check_follow_ups()

    def _check_tries(self) -> None:
        tries = list(TaskExecutionTry.objects.values_list("pk", "started_at", "is_success", "error_class"))
        assert not TaskExecutionTry.objects.filter(started_at__lt=F("run_after")).exists(), "a try began too early"
        assert set(ledger.begun) <= {pk for pk, *_ in tries}, "something ran that was not asked for"
        for pk, started_at, is_success, error_class in tries:
            if is_success or error_class == f"{__name__}.Wanted":
                assert ledger.begun[pk] >= 1, f"try {pk} ended without having run"
            assert ledger.begun[pk] <= 1 + self.handed_back[pk], f"try {pk} ran {ledger.begun[pk]} times"
            assert started_at is not None, f"try {pk} ended without a claim"
            assert is_success or error_class in {f"{__name__}.Wanted", "i3tasks.exceptions.WorkerLost"}, error_class
        assert TaskExecutionResult.objects.count() == len(tries), "one result for each try"
        wanted = {"fail": "failed"}
        for name, outcome in TaskExecution.objects.values_list("task_name", "outcome"):
            assert outcome == wanted.get(name, "success"), f"{name}: {outcome}"

    def _check_follow_ups(self) -> None:
        """Each failure is mourned once, each group called back once, each chain followed once."""
        successes = TaskExecution.objects.filter(tries__is_success=True).annotate(times=Count("tries"))
        assert not successes.filter(times__gt=1).exists()
        mourned = Counter(tuple(args) for args in _arguments_of("mourn"))
        assert set(mourned.values()) <= {1}, f"mourned more than once: {mourned}"
        failed = TaskExecution.objects.filter(task_name="fail")
        assert len(mourned) == failed.count(), "every failure has one callback"
        succeeded = TaskGroup.objects.filter(status=TaskGroup.STATUS_SUCCESS).count()
        called_back = sum(1 for args in _arguments_of("work") if args and isinstance(args[0], list))
        assert called_back == succeeded, f"{succeeded} groups succeeded, {called_back} callbacks"
        assert not TaskGroup.objects.filter(status=TaskGroup.STATUS_PENDING).exists(), "a group still waits"


def _arguments_of(name: str) -> list[list[Any]]:
    return list(TaskExecution.objects.filter(task_name=name).values_list("task_args", flat=True))


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
    with transaction.atomic():  # foreign keys are checked at its end
        for model in (TaskExecutionResult, TaskExecutionTry, TaskExecution, TaskGroup):
            model.objects.all()._raw_delete(using="default")  # type: ignore[attr-defined]
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM sqlite_sequence")  # the same ids, or sets of them have another order


def simulate(seed: int) -> Schedule:
    """Run the schedule of `seed` to its end."""
    forget_everything()
    schedule = Schedule(seed)
    schedule.run()
    return schedule

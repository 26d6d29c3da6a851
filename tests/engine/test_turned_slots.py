"""Slots whose claim brings a try of another kind than the message named, because that try's turn it is."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from i3tasks import task
from i3tasks.core.envelope import Envelope
from i3tasks.core.outcome import Released, Success
from i3tasks.engine import isolation, pool
from i3tasks.engine.assembly import Engine, make_engine
from i3tasks.engine.bodies import Returned
from i3tasks.engine.report import Report
from i3tasks.models import TaskExecutionTry
from tests.support.rigs import auntil, delivery

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]


class Bodies:
    """Those that run now, and the most that ever ran at once, by their kind. Each ends when the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.begun: list[str] = []
        self._lock = threading.Lock()

    @contextmanager
    def inside(self, kind: str) -> Iterator[None]:
        kinds = (kind, "any") if kind == "coroutine" else (kind, "blocking", "any")
        with self._lock:
            self.now.update(kinds)
            self.most |= self.now
            self.begun.append(kind)
        try:
            yield
        finally:
            with self._lock:
                self.now.subtract(kinds)


bodies = Bodies()


@task(max_retries=0)
async def turn() -> str:
    with bodies.inside("coroutine"):
        while not bodies.gate.is_set():
            await asyncio.sleep(0.01)
    return "coroutine"


@task(max_retries=0)
def block() -> str:
    with bodies.inside("sync"):
        assert bodies.gate.wait(20)
    return "sync"


@task(max_retries=0, isolation="process", timeout=20)
def spawn() -> str:
    raise AssertionError("the child process is a stand-in")


@pytest.fixture(autouse=True)
def children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for child processes. What they do counts towards the timeout, waiting for room included."""
    global bodies
    bodies = Bodies()

    async def run_in_child(*_: Any) -> Returned:
        with bodies.inside("process"):
            while not bodies.gate.is_set():
                await asyncio.sleep(0.01)
        return Returned("process")

    monkeypatch.setattr(isolation, "run_in_child", run_in_child)


@pytest.fixture
def heedless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims know of no thread that is taken, as when it was taken while they were on their way."""
    monkeypatch.setattr(pool._Slot, "spare_threads", None)


@asynccontextmanager
async def engine_of(*, concurrency: int = 4, threads: int = 1) -> AsyncIterator[Engine]:
    engine = make_engine(concurrency=concurrency, threads=threads)
    try:
        yield engine
    finally:
        bodies.gate.set()
        engine.pool.close()


async def published(called: Any, count: int = 1, priority: int = 0) -> list[Any]:
    """The messages of that many calls. They are out, so that each may bring a call of a higher priority."""
    messages = []
    for _ in range(count):
        task_try: TaskExecutionTry = (await called.using(priority=priority).adelay()).task_execution_try
        spec = called.spec
        envelope = Envelope(task_try.task_execution_id, task_try.pk, spec.module_name, spec.func_name)
        messages.append(delivery(envelope.to_bytes()))
    await TaskExecutionTry.objects.aupdate(publish_count=1)
    return messages


def begun(engine: Engine, messages: list[Any]) -> list[asyncio.Task[Report]]:
    return [asyncio.create_task(engine.executor.execute(message)) for message in messages]


def values_of(reports: list[Report]) -> Counter[Any]:
    return Counter(report.outcome.value for report in reports if isinstance(report.outcome, Success))


@pytest.mark.usefixtures("heedless")
async def test_a_process_in_a_coroutines_slot_waits_for_its_room_before_its_timeout_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "LONGEST_WAIT_SECONDS", 60)
    tickets = await published(turn, 4)
    await published(spawn, 4, priority=5)
    async with engine_of() as engine:
        runs = begun(engine, tickets)
        await auntil(lambda: len(engine.running.leases) == 4 and bodies.now["process"])
        bodies.gate.set()
        reports = await asyncio.gather(*runs)
    assert values_of(reports) == {"process": 4}
    assert bodies.most["process"] == 1


async def test_a_coroutine_in_a_threads_slot_leaves_the_thread_to_others() -> None:
    [ticket, *others] = await published(block, 3)
    await published(turn, priority=5)
    async with engine_of() as engine:
        runs = begun(engine, [ticket])
        await auntil(lambda: bodies.now["coroutine"])
        runs += begun(engine, others)
        await auntil(lambda: bodies.now["sync"])
        assert bodies.now["coroutine"] == 1, "and it runs on"
        bodies.gate.set()
        assert values_of(await asyncio.gather(*runs)) == {"coroutine": 1, "sync": 2}
    assert bodies.most["blocking"] == 1


@pytest.mark.usefixtures("heedless")
@pytest.mark.parametrize("called", [block, spawn], ids=["sync", "process"])
async def test_what_gets_no_thread_in_a_coroutines_slot_is_handed_back_and_uses_no_retry(
    called: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "LONGEST_WAIT_SECONDS", 0.1)
    async with engine_of() as engine:
        runs = begun(engine, await published(block))
        await auntil(lambda: bodies.now["sync"])
        [ticket] = await published(turn)
        await published(called, priority=5)
        report = await engine.executor.execute(ticket)
        assert report.outcome == Released()
        bodies.gate.set()
        await asyncio.gather(*runs)
    assert bodies.most["blocking"] == 1
    waiting = await TaskExecutionTry.objects.select_related("task_execution").aget(priority=5)
    assert (waiting.try_number, waiting.is_completed, waiting.claim_token) == (1, False, None)
    assert waiting.task_execution.task_name == called.spec.func_name


@pytest.mark.usefixtures("heedless")
async def test_who_waits_for_a_thread_with_a_slot_goes_before_those_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "LONGEST_WAIT_SECONDS", 60)
    async with engine_of() as engine:
        runs = begun(engine, await published(block))
        await auntil(lambda: bodies.now["sync"])
        runs += begun(engine, await published(block, 2))
        tickets = await published(turn)
        await published(spawn, priority=5)
        claimed = begun(engine, tickets)
        await auntil(lambda: len(engine.running.leases) == 2)
        bodies.gate.set()
        await asyncio.gather(*runs, *claimed)
    assert bodies.begun == ["sync", "process", "sync", "sync"]
    assert bodies.most["blocking"] == 1


@pytest.mark.usefixtures("heedless")
async def test_the_limits_hold_whichever_tries_the_messages_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LONGEST_WAIT_SECONDS", 60)
    kinds = [turn, block, spawn]
    messages = [message for called in kinds for message in await published(called, 4)]
    for called, priority in zip(kinds, (5, 6, 7), strict=True):
        await published(called, 4, priority)
    async with engine_of(concurrency=5, threads=2) as engine:
        runs = begun(engine, messages)
        await auntil(lambda: bodies.now["blocking"] == 2 and len(engine.running.leases) == 5)
        assert engine.pool.room == pool.Room(0, 0)
        bodies.gate.set()
        assert values_of(await asyncio.gather(*runs)) == {"coroutine": 4, "sync": 4, "process": 4}
        assert engine.pool.room == pool.Room(5, 2), "all is given back, once"
    assert bodies.most["any"] <= 5
    assert bodies.most["blocking"] == 2


@pytest.mark.usefixtures("heedless")
async def test_a_closing_pool_hands_back_who_waits_for_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LONGEST_WAIT_SECONDS", 60)
    async with engine_of() as engine:
        runs = begun(engine, await published(block))
        await auntil(lambda: bodies.now["sync"])
        tickets = await published(turn)
        await published(block, priority=5)
        claimed = begun(engine, tickets)
        await auntil(lambda: len(engine.running.leases) == 2)
        await asyncio.sleep(0)
        engine.pool.stop_admitting()
        async with asyncio.timeout(10):
            assert [report.outcome for report in await asyncio.gather(*claimed)] == [Released()]
        bodies.gate.set()
        await asyncio.gather(*runs)


async def test_coroutines_run_while_sync_functions_of_a_higher_priority_wait_for_a_thread() -> None:
    async with engine_of() as engine:
        runs = begun(engine, await published(block))
        await auntil(lambda: bodies.now["sync"])
        await published(block, 6, priority=5)
        runs += begun(engine, await published(turn, 3))
        await auntil(lambda: bodies.now["coroutine"] == 3)
        bodies.gate.set()
        assert values_of(await asyncio.gather(*runs)) == {"sync": 1, "coroutine": 3}
    assert await TaskExecutionTry.objects.filter(priority=5, started_at=None).acount() == 6, "none was leased"


async def test_coroutines_of_a_higher_priority_go_before_while_no_thread_is_free() -> None:
    async with engine_of() as engine:
        runs = begun(engine, await published(block))
        await auntil(lambda: bodies.now["sync"])
        tickets = await published(turn, 2)
        await published(block, priority=5)
        await published(turn, priority=3)
        runs += begun(engine, tickets)
        await auntil(lambda: bodies.now["coroutine"] == 2)
        begun_ones = TaskExecutionTry.objects.filter(claim_token__isnull=False).order_by("priority")
        assert [level async for level in begun_ones.values_list("priority", flat=True)] == [0, 0, 3]
        bodies.gate.set()
        await asyncio.gather(*runs)


async def test_a_coroutines_slot_runs_a_sync_function_of_a_higher_priority_if_a_thread_is_free() -> None:
    first, second = await published(turn, 2)
    await published(block, 3, priority=5)
    async with engine_of() as engine:
        runs = begun(engine, [first])
        await auntil(lambda: bodies.now["sync"])
        runs += begun(engine, [second])
        await auntil(lambda: bodies.now["coroutine"])
        bodies.gate.set()
        assert values_of(await asyncio.gather(*runs)) == {"sync": 1, "coroutine": 1}

"""The pool's own tasks, and the threads that sync bodies share."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any, cast

import anyio
import pytest

from i3tasks import task
from i3tasks.engine import body_threads
from i3tasks.engine.bodies import Raised, Returned
from i3tasks.engine.body_threads import BodyThreads
from i3tasks.engine.lease_renewal import HandedBack, Run
from i3tasks.engine.pool import Slot, WorkerPool
from i3tasks.engine.try_loops import TryLoops
from i3tasks.exceptions import TaskTimeout
from tests.support.rigs import auntil

LEFT: contextvars.ContextVar[str] = contextvars.ContextVar("LEFT", default="nothing")


@task
async def leave_something() -> str:
    before = LEFT.get()
    LEFT.set("something")
    return before


class Claim:
    """As much of a claim as a pool reads."""

    execution_id, try_id = 7, 8


def a_run() -> Run:
    return Run(cast(Any, Claim()))


async def test_a_loop_carries_out_one_job_after_the_other() -> None:
    carried: list[asyncio.Task[Any] | None] = []
    async with anyio.create_task_group() as tasks:
        loops = TryLoops(tasks, 2, contextvars.copy_context())

        async def job() -> None:
            carried.append(asyncio.current_task())
            await asyncio.sleep(0)

        for _ in range(3):
            before = len(carried)
            for _ in range(4):
                loops.give(job)
            await auntil(lambda: len(carried) == before + 4)  # noqa: B023
        tasks.cancel_scope.cancel()
    assert len(carried) == 12
    assert len(set(carried)) == 2


async def test_what_a_body_sets_reaches_no_later_body() -> None:
    pool = WorkerPool(concurrency=1, threads=1, database_lanes=1)
    answers: list[Any] = []

    async def carry(slot: Slot) -> None:
        answers.append(await slot.run(leave_something.spec, a_run(), leave_something.spec.function, None))
        LEFT.set("left by the carrier itself")

    async with anyio.create_task_group() as tasks:
        pool.open(tasks)
        for _ in range(3):
            pool.submit(leave_something.spec, carry, lambda: None)
        await auntil(lambda: len(answers) == 3)
        tasks.cancel_scope.cancel()
    pool.close()
    assert answers == [Returned("nothing")] * 3


async def test_trips_that_wait_when_the_pool_closes_are_refused() -> None:
    pool = WorkerPool(concurrency=1, threads=1, database_lanes=1)
    log: list[str] = []
    gate = asyncio.Event()

    async def carry(slot: Slot) -> None:
        log.append("begun")
        await gate.wait()
        log.append("ended")

    async with anyio.create_task_group() as tasks:
        pool.open(tasks)
        for _ in range(2):
            pool.submit(None, carry, lambda: log.append("refused"))
        await auntil(lambda: log)
        pool.stop_admitting()
        pool.submit(None, carry, lambda: log.append("refused"))
        gate.set()
        await auntil(lambda: "ended" in log)
        tasks.cancel_scope.cancel()
    assert log == ["begun", "refused", "refused", "ended"]


# ------------------------------------------------------------------------------------------------------ threads


class Threads:
    """One thread, with a body that keeps it until it is told."""

    def __init__(self) -> None:
        self.threads = BodyThreads("test-body", 1)
        self.gate = threading.Event()
        self.freed: list[float | None] = []
        self.ran: list[str] = []

    async def run(self, function: Callable[[], Any], run: Run, timeout: float | None = None) -> Returned | Raised:
        return await self.threads.run(run, function, contextvars.copy_context(), timeout, self.freed.append)

    def start(self, name: str, run: Run, timeout: float | None = None) -> asyncio.Task[Returned | Raised]:
        return asyncio.create_task(self.run(lambda: self.ran.append(name), run, timeout))

    def block(self, run: Run, timeout: float | None = None) -> asyncio.Task[Returned | Raised]:
        return asyncio.create_task(self.run(lambda: self.gate.wait(30), run, timeout))


@pytest.fixture
def threads() -> Any:
    threads = Threads()
    yield threads
    threads.gate.set()
    threads.threads.close()


async def test_a_stopped_run_whose_body_waits_for_a_thread_never_begins(threads: Threads) -> None:
    blocked = threads.block(a_run())
    run, reason = a_run(), HandedBack()
    waiting = threads.start("waiting", run)
    await auntil(lambda: run.ending)
    run.stop(reason)
    answer = await waiting
    assert isinstance(answer, Raised)
    assert answer.error is reason
    assert threads.freed == [None]
    threads.gate.set()
    assert await blocked == Returned(True)
    assert await threads.start("next", a_run()) == Returned(None)
    assert threads.ran == ["next"]


async def test_the_timeout_of_a_body_begins_when_it_has_a_thread(threads: Threads) -> None:
    blocked = threads.block(a_run())
    run = a_run()
    waiting = threads.start("waiting", run, timeout=30)
    await auntil(lambda: run.ending)
    assert run.ending is not None
    assert run.ending._timer is None
    threads.gate.set()
    await blocked
    assert await waiting == Returned(None)
    assert run.ending._timer is not None


async def test_a_thread_is_free_only_when_a_body_that_timed_out_has_ended(threads: Threads) -> None:
    answer = await threads.block(a_run(), timeout=0.01)
    assert isinstance(answer, Raised)
    assert isinstance(answer.error, TaskTimeout)
    assert threads.freed == []
    threads.gate.set()
    await auntil(lambda: threads.freed)


async def test_a_try_that_waits_long_for_a_thread_is_handed_back(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_threads, "LONGEST_WAIT_SECONDS", 0.01)
    blocked = threads.block(a_run())
    answer = await threads.start("waiting", a_run())
    assert isinstance(answer, Raised)
    assert isinstance(answer.error, HandedBack)
    threads.gate.set()
    assert await blocked == Returned(True), "a body that has begun is not touched"
    assert threads.ran == []

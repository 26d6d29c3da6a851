"""Where bodies run: limits, lanes, connections, and that no body waits for another's reasons."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from i3tasks import task
from i3tasks.core.outcome import Success
from i3tasks.engine.assembly import Engine, make_engine
from i3tasks.engine.report import Report, Verdict
from i3tasks.models import TaskExecutionTry
from tests.shop.models import Order
from tests.shop.tasks import nap
from tests.support.rigs import auntil, delivery

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

HERE = "tests.engine.test_pool"
GATE = threading.Event()
INSIDE: list[str] = []
CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("CALLER", default="nobody")


@pytest.fixture(autouse=True)
def gate() -> Any:
    GATE.clear()
    INSIDE.clear()
    yield
    GATE.set()


@task(max_retries=0)
def stay(name: str) -> str:
    INSIDE.append(name)
    assert GATE.wait(20)
    return threading.current_thread().name


@task(max_retries=0)
async def astay(name: str) -> str:
    INSIDE.append(name)
    while not GATE.is_set():
        await asyncio.sleep(0.01)
    return name


@task(max_retries=0)
async def block_its_thread(name: str) -> str:
    INSIDE.append(name)
    await sync_to_async(GATE.wait)(20)
    return name


@task(max_retries=0)
async def count_orders() -> int:
    INSIDE.append("counting")
    return await Order.objects.acount()


@task(max_retries=0)
def backend(number: int = 0) -> Any:
    """Which connection this is."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()" if connection.vendor == "postgresql" else "SELECT 1")
        return [cursor.fetchone()[0], threading.current_thread().name]


@task(max_retries=0)
async def abackend(number: int = 0) -> Any:
    return await sync_to_async(backend.spec.function)()


@task(max_retries=0)
def caller() -> str:
    return CALLER.get()


@task(max_retries=0)
async def acaller() -> str:
    return f"{CALLER.get()} {await sync_to_async(CALLER.get)()}"


Run = Callable[..., Awaitable[Report]]


@asynccontextmanager
async def running(**limits: int) -> AsyncIterator[tuple[Engine, Run]]:
    engine = make_engine(**limits)

    async def run(called: Any, *args: Any) -> Report:
        from i3tasks.core.envelope import Envelope

        task_try: TaskExecutionTry = (await called.adelay(*args)).task_execution_try
        spec = called.spec
        envelope = Envelope(task_try.task_execution_id, task_try.pk, spec.module_name, spec.func_name)
        return await engine.executor.execute(delivery(envelope.to_bytes()))

    try:
        yield engine, run
    finally:
        GATE.set()
        engine.pool.close()


async def gathered(runs: list[Any]) -> list[Any]:
    reports = await asyncio.gather(*runs)
    assert {report.verdict for report in reports} == {Verdict.ACK}
    return [report.outcome.value if isinstance(report.outcome, Success) else report.outcome for report in reports]


def started(run: Run, *calls: Any) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(run(*call)) for call in calls]  # type: ignore[arg-type]


async def test_no_more_sync_bodies_than_threads_run_at_once() -> None:
    async with running(concurrency=20, threads=3) as (_, run):
        runs = started(run, *[(stay, str(number)) for number in range(8)])
        await auntil(lambda: len(INSIDE) == 3)
        assert await TaskExecutionTry.objects.filter(started_at__isnull=False).acount() == 3, "who waits has no lease"
        GATE.set()
        names = await gathered(runs)
    assert len(INSIDE) == 8
    assert len(set(names)) == 3


async def test_no_more_bodies_than_concurrency_run_at_once() -> None:
    async with running(concurrency=5, threads=2) as (_, run):
        runs = started(run, *[(astay, str(number)) for number in range(12)])
        await auntil(lambda: len(INSIDE) == 5)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(INSIDE) == 5
        GATE.set()
        await gathered(runs)


async def test_sync_bodies_that_wait_for_a_thread_leave_coroutines_alone() -> None:
    async with running(concurrency=4, threads=1) as (_, run):
        runs = started(run, *[(stay, str(number)) for number in range(10)])
        await auntil(lambda: INSIDE)
        async with asyncio.timeout(10):
            assert (await run(nap, 0)).outcome == Success(0)
        GATE.set()
        await gathered(runs)


async def test_coroutines_that_run_leave_sync_bodies_alone() -> None:
    async with running(concurrency=6, threads=1) as (_, run):
        runs = started(run, *[(astay, str(number)) for number in range(5)])
        await auntil(lambda: len(INSIDE) == 5)
        async with asyncio.timeout(10):
            assert isinstance((await run(caller)).outcome, Success)
        GATE.set()
        await gathered(runs)


async def test_one_coroutines_slow_call_does_not_delay_anothers() -> None:
    async with running(concurrency=10, threads=1) as (_, run):
        runs = started(run, (block_its_thread, "slow"))
        await auntil(lambda: INSIDE)
        async with asyncio.timeout(10):
            assert (await run(count_orders)).outcome == Success(0)
        GATE.set()
        await gathered(runs)


async def test_more_coroutines_than_lanes_share_them(settings: Any) -> None:
    from dataclasses import replace

    settings.I3TASKS = replace(settings.I3TASKS, database_lanes=2)
    async with running(concurrency=30, threads=1) as (_, run):
        values = await gathered(started(run, *[(abackend, number) for number in range(30)]))
    assert len({name for _, name in values}) <= 2


async def test_five_hundred_sleeping_coroutines_need_no_thread_of_their_own() -> None:
    async with running(concurrency=500, threads=2) as (_, run):
        threads = threading.active_count()
        runs = started(run, *[(astay, str(number)) for number in range(60)])
        await auntil(lambda: len(INSIDE) == 60)
        assert threading.active_count() <= threads + 4
        GATE.set()
        await gathered(runs)


@pytest.mark.postgres
@pytest.mark.parametrize("called", [backend, abackend], ids=["sync", "coroutine"])
async def test_a_connection_that_was_killed_between_two_bodies_is_replaced(called: Any, settings: Any) -> None:
    async with running(concurrency=1, threads=1) as (_, run):
        [[first, thread]] = await gathered([run(called)])
        await sync_to_async(end_connection)(first)
        [[second, same_thread]] = await gathered([run(called)])
    assert thread == same_thread
    assert second != first


def end_connection(pid: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])


@pytest.mark.postgres
async def test_connections_are_kept_and_bounded(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    from dataclasses import replace

    from django.db import connections

    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 60)
    settings.I3TASKS = replace(settings.I3TASKS, database_lanes=3)
    async with running(concurrency=50, threads=2) as (_, run):
        calls = [(called, number) for number in range(25) for called in (backend, abackend)]
        values = await gathered(started(run, *calls))
    assert len({pid for pid, _ in values}) <= 5, "lanes and threads"


@pytest.mark.parametrize("called", [caller, acaller], ids=["sync", "coroutine"])
async def test_context_variables_flow_in(called: Any) -> None:
    CALLER.set("me")
    async with running() as (_, run):
        [value] = await gathered([run(called)])
    assert set(value.split()) == {"me"}


async def test_the_threads_end_with_the_pool() -> None:
    others = set(threading.enumerate())

    def ours() -> set[str]:
        new = {thread.name for thread in threading.enumerate() if thread not in others}
        return {name for name in new if name.startswith(("i3tasks-sync", "i3tasks-lane"))}

    async with running(concurrency=4, threads=2) as (_, run):
        await gathered(started(run, (caller,), (abackend, 1)))
        assert ours()
    deadline = time.monotonic() + 10
    while ours():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)

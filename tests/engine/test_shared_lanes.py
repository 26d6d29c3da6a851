"""Coroutines that share lanes share no transaction and no session state, and no wait is without a sign or an end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction

from i3tasks import task
from i3tasks.core.envelope import Envelope
from i3tasks.core.outcome import Failure, Success
from i3tasks.engine import shared_lanes
from i3tasks.engine.assembly import make_engine
from i3tasks.engine.pool import WorkerPool
from tests.shop.models import Order
from tests.support.rigs import delivery

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]


class AsyncAtomic:
    """What projects write around Django's Atomic, which has no async form."""

    async def __aenter__(self) -> None:
        self._atomic = transaction.atomic()
        await sync_to_async(self._atomic.__enter__)()

    async def __aexit__(self, *error: Any) -> None:
        await sync_to_async(self._atomic.__exit__)(*error)


class Changed(Exception):
    pass


@task(max_retries=0)
async def write_in_transaction(name: str, fails: bool) -> None:
    async with AsyncAtomic():
        await Order.objects.acreate(name=name)
        await asyncio.sleep(0.01)
        if fails:
            raise Changed


@task(max_retries=0)
async def count(name: str) -> int:
    return await Order.objects.acount()


@task(max_retries=0)
async def leave_atomic_open() -> str:
    await AsyncAtomic().__aenter__()
    await Order.objects.acreate(name="lost")
    return "done"


@task(max_retries=0)
async def leave_raw_open() -> str:
    await sync_to_async(_begin)()
    await Order.objects.acreate(name="lost")
    return "done"


@task(max_retries=0)
async def leave_autocommit_off() -> str:
    await sync_to_async(transaction.set_autocommit)(False)
    await Order.objects.acreate(name="lost")
    return "done"


@task(max_retries=0)
def leave_atomic_open_in_thread() -> str:
    transaction.atomic().__enter__()
    Order.objects.create(name="lost")
    return "done"


@task(max_retries=0)
def leave_raw_open_in_thread() -> str:
    _begin()
    Order.objects.create(name="lost")
    return "done"


@task(max_retries=0)
def leave_autocommit_off_in_thread() -> str:
    transaction.set_autocommit(False)
    Order.objects.create(name="lost")
    return "done"


def _begin() -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")


async def run(engine: Any, called: Any, *args: Any) -> Any:
    task_try = (await called.adelay(*args)).task_execution_try
    spec = called.spec
    envelope = Envelope(task_try.task_execution_id, task_try.pk, spec.module_name, spec.func_name)
    return (await engine.executor.execute(delivery(envelope.to_bytes()))).outcome


@pytest.fixture
async def engine(settings: Any) -> Any:
    from dataclasses import replace

    settings.I3TASKS = replace(settings.I3TASKS, database_lanes=2)
    engine = make_engine(concurrency=30, threads=1)
    yield engine
    engine.pool.close()


async def test_a_rollback_takes_nothing_of_a_neighbours(engine: Any) -> None:
    runs = [run(engine, write_in_transaction, f"o{number}", number % 2 == 1) for number in range(16)]
    outcomes = await asyncio.wait_for(asyncio.gather(*runs), 60)
    assert [isinstance(outcome, Success) for outcome in outcomes] == [True, False] * 8
    names = {order.name async for order in Order.objects.all()}
    assert names == {f"o{number}" for number in range(0, 16, 2)}


@pytest.mark.parametrize(
    "leave",
    [
        leave_atomic_open,
        leave_raw_open,
        leave_autocommit_off,
        leave_atomic_open_in_thread,
        leave_raw_open_in_thread,
        leave_autocommit_off_in_thread,
    ],
    ids=lambda leave: leave.spec.func_name,
)
async def test_a_transaction_left_behind_fails_the_body_and_reaches_no_other(leave: Any, engine: Any) -> None:
    for _ in range(3):
        outcome = await run(engine, leave)
        assert isinstance(outcome, Failure)
        assert outcome.error.error_class == "django.db.transaction.TransactionManagementError"
    assert await run(engine, count, "then") == Success(0)
    assert isinstance(await run(engine, write_in_transaction, "kept", False), Success)
    assert await Order.objects.acount() == 1


@pytest.mark.postgres
async def test_an_advisory_lock_has_one_holder(engine: Any) -> None:
    outcomes = await asyncio.gather(*[run(engine, hold_lock) for _ in range(8)])
    assert all(isinstance(outcome, Success) for outcome in outcomes), outcomes
    assert MOST == [1]


HOLDERS: list[int] = []
MOST = [0]


@task(max_retries=0)
async def hold_lock() -> None:
    while not await sync_to_async(_lock)():
        await asyncio.sleep(0.01)
    HOLDERS.append(1)
    MOST[0] = max(MOST[0], len(HOLDERS))
    await asyncio.sleep(0.02)
    HOLDERS.pop()
    await sync_to_async(_unlock)()


def _lock() -> Any:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(7)")
        return cursor.fetchone()[0]


def _unlock() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock(7)")


@task(max_retries=0)
async def set_state() -> None:
    def set_it() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = 12345")

    await sync_to_async(set_it)()


@task(max_retries=0)
def set_state_in_thread() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 12345")


@task(max_retries=0)
async def read_state() -> str:
    def read() -> str:
        with connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            return str(cursor.fetchone()[0])

    return await sync_to_async(read)()


@task(max_retries=0)
def read_state_in_thread() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        return str(cursor.fetchone()[0])


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("set_it", "read"), [(set_state, read_state), (set_state_in_thread, read_state_in_thread)], ids=["lane", "thread"]
)
async def test_session_state_does_not_reach_the_next_body(
    set_it: Any, read: Any, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import connections

    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)
    [before] = [(await run(engine, read)).value]
    for _ in range(3):
        assert isinstance(await run(engine, set_it), Success)
    for _ in range(3):
        assert (await run(engine, read)).value == before


@pytest.mark.postgres  # on SQLite one transaction holds the whole database
async def test_a_wait_for_a_lane_is_seen_and_ends(
    engine: Any, monkeypatch: pytest.MonkeyPatch, events: list[str]
) -> None:
    monkeypatch.setattr(shared_lanes, "SEEN_AFTER_SECONDS", 0.1)
    monkeypatch.setattr(shared_lanes, "LONGEST_WAIT_SECONDS", 0.5)
    HELD.clear()
    HOLDING.clear()
    holders = [asyncio.create_task(run(engine, hold_until_told)) for _ in range(2)]
    while len(HOLDING) < len(holders):
        await asyncio.sleep(0.01)
    outcome = await asyncio.wait_for(run(engine, count, "x"), 30)
    assert isinstance(outcome, Failure)
    assert "Waited 0.5 seconds for a database lane: 2 of 2" in outcome.error.message
    assert "lane_awaited" in events
    HELD.append("go")
    assert [isinstance(outcome, Success) for outcome in await asyncio.gather(*holders)] == [True, True]
    assert isinstance(await run(engine, count, "x"), Success)


HELD: list[str] = []
HOLDING: list[str] = []


@task(max_retries=0)
async def hold_until_told() -> None:
    async with AsyncAtomic():
        await Order.objects.acount()
        HOLDING.append("a lane")
        while not HELD:
            await asyncio.sleep(0.01)


@task(max_retries=0, timeout=0.2)
async def time_out_in_transaction() -> None:
    async with AsyncAtomic():
        await Order.objects.acreate(name="lost")
        await asyncio.sleep(60)


async def test_a_body_that_is_stopped_in_a_transaction_gives_its_lane_back(engine: Any) -> None:
    outcomes = await asyncio.gather(*[run(engine, time_out_in_transaction) for _ in range(4)])
    assert all(isinstance(outcome, Failure) for outcome in outcomes)
    assert await run(engine, count, "then") == Success(0)


@task(max_retries=0)
async def sleep_with_lane(number: int) -> int:
    await Order.objects.acount()
    await asyncio.sleep(0.2)
    return await Order.objects.acount()


async def test_sleeping_coroutines_hold_no_lane(engine: Any) -> None:
    outcomes = await asyncio.wait_for(asyncio.gather(*[run(engine, sleep_with_lane, n) for n in range(25)]), 60)
    assert outcomes == [Success(0)] * 25
    pool: WorkerPool = engine.pool
    assert len(pool._coroutine_lanes._places) <= 2


@pytest.mark.postgres
@pytest.mark.parametrize("called", [count, read_state_in_thread], ids=["lane", "thread"])
async def test_a_connection_that_the_server_closed_is_replaced_whatever_its_age(
    called: Any, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import connections

    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)
    args = ("x",) if called is count else ()
    for _ in range(3):
        assert isinstance(await run(engine, called, *args), Success)
        await sync_to_async(end_all_others)()


@pytest.mark.postgres
async def test_a_coroutine_meets_no_connection_that_was_closed_while_it_slept(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import connections

    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)
    sleeping = asyncio.create_task(run(engine, sleep_with_lane, 1))
    await asyncio.sleep(0.1)
    await sync_to_async(end_all_others)()
    assert await sleeping == Success(0)


def end_all_others() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@task(max_retries=0)
def change_session(change: str) -> str:
    driver = connection.connection
    changes: dict[str, Any] = {
        "autocommit": lambda: setattr(driver, "autocommit", False),
        "read only": lambda: setattr(driver, "read_only", True),
        "isolation": lambda: setattr(driver, "isolation_level", 4 if hasattr(driver, "info") else "DEFERRED"),
    }
    if change in changes:
        changes[change]()
    elif change:
        with connection.cursor() as cursor:
            cursor.execute(change)
    return _session()


@task(max_retries=0)
async def achange_session(change: str) -> str:
    await Order.objects.acount()
    return str(await sync_to_async(change_session.spec.function)(change))


def _session() -> str:
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("SELECT cache_size, foreign_keys FROM pragma_cache_size, pragma_foreign_keys")
            return f"{cursor.fetchone()} {connection.connection.isolation_level}"
        driver = connection.connection
        return f"{driver.autocommit} {driver.read_only} {driver.isolation_level}"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("autocommit", marks=pytest.mark.postgres),
        pytest.param("read only", marks=pytest.mark.postgres),
        "isolation",
        pytest.param("PRAGMA main.cache_size = 77", marks=pytest.mark.sqlite),
        pytest.param("PRAGMA cache_size(77)", marks=pytest.mark.sqlite),
        pytest.param("PRAGMA foreign_keys(OFF)", marks=pytest.mark.sqlite),
    ],
)
@pytest.mark.parametrize("called", [change_session, achange_session], ids=["thread", "lane"])
async def test_what_a_body_sets_on_the_drivers_connection_ends_with_it(
    called: Any, change: str, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.db import connections

    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)
    before = (await run(engine, called, "")).value
    for _ in range(3):
        await run(engine, called, change)
    for _ in range(3):
        assert (await run(engine, called, "")).value == before


@pytest.mark.sqlite
async def test_a_pragma_that_only_reads_is_no_session_state(engine: Any) -> None:
    from i3tasks.engine import session_state

    for read in (
        "PRAGMA table_info(shop_order)",
        "PRAGMA foreign_key_check('shop_order')",
        "PRAGMA main.index_list(x)",
    ):
        assert not session_state._SETS_STATE.search(read)

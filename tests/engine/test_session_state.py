"""Session state that is set inside functions of the database stays with the body that set it, and ends with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections

from i3tasks import task
from i3tasks.core.outcome import Success
from i3tasks.engine import session_state
from i3tasks.engine.assembly import make_engine
from tests.engine.test_shared_lanes import run
from tests.shop.models import Order

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("sent", "functions"),
    pytest.mark.postgres,
]

FUNCTIONS = """
CREATE FUNCTION quiet() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION set_limits() RETURNS void LANGUAGE plpgsql AS $$BEGIN SET statement_timeout = 12345; END$$;
CREATE FUNCTION set_tenant() RETURNS void LANGUAGE plpgsql AS $$BEGIN
    PERFORM set_config('app.tenant', '7', false); END$$;
CREATE FUNCTION set_any(n text) RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM set_config(n, '7', false); END$$;
CREATE FUNCTION set_nested() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM set_tenant(); END$$;
CREATE FUNCTION set_locally() RETURNS void LANGUAGE plpgsql AS $$BEGIN
    PERFORM set_config('app.tenant', '7', true); END$$;
CREATE FUNCTION take_lock() RETURNS void LANGUAGE sql BEGIN ATOMIC SELECT pg_advisory_lock(11); END;
CREATE FUNCTION make_table() RETURNS void LANGUAGE plpgsql AS $$BEGIN CREATE TEMP TABLE scratch (n int); END$$;
CREATE FUNCTION hear() RETURNS void LANGUAGE plpgsql AS $$BEGIN LISTEN something; END$$;
CREATE PROCEDURE set_by_call() LANGUAGE plpgsql AS $$BEGIN SET lock_timeout = 4321; END$$;
CREATE FUNCTION on_order() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
    PERFORM set_config('app.tenant', '8', false); RETURN NEW; END$$;
CREATE TRIGGER on_order AFTER INSERT ON shop_order FOR EACH ROW EXECUTE FUNCTION on_order();
"""
STATE = """
SELECT concat_ws(' ', current_setting('statement_timeout'), current_setting('lock_timeout'),
    coalesce(current_setting('app.tenant', true), ''),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
    (SELECT count(*) FROM pg_listening_channels()), to_regclass('pg_temp.scratch'))
"""


@pytest.fixture
def functions(transactional_db: None) -> Iterator[None]:
    execute(FUNCTIONS)
    session_state._functions.clear()
    yield
    names = "quiet set_limits set_tenant set_any set_nested set_locally take_lock make_table hear"
    execute("DROP TRIGGER on_order ON shop_order; DROP FUNCTION on_order; DROP PROCEDURE set_by_call;")
    execute("".join(f"DROP FUNCTION {name};" for name in names.split()))
    session_state._functions.clear()


@pytest.fixture
async def engine(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", None)
    settings.I3TASKS = replace(settings.I3TASKS, database_lanes=1)
    engine = make_engine(concurrency=10, threads=1)
    yield engine
    engine.pool.close()


def execute(sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0] if cursor.description else None


@task(max_retries=0)
def execute_in_thread(sql: str) -> Any:
    return insert_order() if sql == "INSERT" else execute(sql)


@task(max_retries=0)
async def execute_in_lane(sql: str) -> Any:
    return await sync_to_async(insert_order if sql == "INSERT" else execute)(*([] if sql == "INSERT" else [sql]))


def insert_order() -> None:
    Order.objects.create(name="a")


SETTERS = [
    "SELECT set_limits()",
    "SELECT set_tenant()",
    "SELECT set_any('app.tenant')",
    "SELECT set_nested()",
    "SELECT take_lock()",
    "SELECT make_table()",
    "SELECT hear()",
    "CALL set_by_call()",
    "INSERT",
    "DO $$BEGIN EXECUTE 'SET statement_timeout = 12345'; END$$",
    "SELECT 1; SET statement_timeout = 12345",
    "/* a comment */ SET statement_timeout = 12345",
    "SELECT 1 AS n INTO TEMP scratch",
]


@pytest.mark.parametrize("called", [execute_in_thread, execute_in_lane], ids=["thread", "lane"])
async def test_it_does_not_reach_the_next_body(called: Any, engine: Any) -> None:
    before = (await run(engine, called, STATE)).value
    for sql in SETTERS:
        assert isinstance(await run(engine, called, sql), Success), sql
        assert (await run(engine, called, STATE)).value == before, sql


HOLDING: list[Any] = []


@task(max_retries=0)
async def hold(sql: str) -> Any:
    """Set state, let others use their chance, and read it: it must still be there, and nothing of theirs."""
    await execute_in_lane.spec.function(sql)
    HOLDING.append(sql)
    while "read" not in HOLDING:
        await asyncio.sleep(0.01)
    return await sync_to_async(execute)(STATE)


@pytest.mark.parametrize("sql", ["SELECT set_tenant()", "SELECT take_lock()", "INSERT", "SELECT make_table()"])
async def test_a_lane_that_has_it_stays_with_its_body(sql: str, engine: Any) -> None:
    HOLDING.clear()
    before = (await run(engine, execute_in_lane, STATE)).value
    holding = asyncio.create_task(run(engine, hold, sql))
    while not HOLDING:
        await asyncio.sleep(0.01)
    reading = asyncio.create_task(run(engine, execute_in_lane, STATE))
    while not (reading.done() or engine.pool._coroutine_lanes._waiting):
        await asyncio.sleep(0.01)
    HOLDING.append("read")
    assert (await holding).value != before
    assert (await reading).value == before


@task(max_retries=0)
async def share(sql: str) -> Any:
    """Leave the lane free after a call that sets nothing that stays."""
    HOLDING.append(await execute_in_lane.spec.function(sql))
    while "done" not in HOLDING:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("sql", ["SELECT quiet()", "SELECT set_locally()"])
async def test_a_lane_without_it_is_shared(sql: str, engine: Any) -> None:
    HOLDING.clear()
    sharing = asyncio.create_task(run(engine, share, sql))
    while not HOLDING:
        await asyncio.sleep(0.01)
    pid = "SELECT pg_backend_pid()"
    first = await asyncio.wait_for(run(engine, execute_in_lane, pid), 20)
    HOLDING.append("done")
    assert isinstance(await sharing, Success)
    assert await run(engine, execute_in_lane, pid) == first, "and so is its connection kept"

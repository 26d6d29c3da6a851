"""Bodies that run in the caller's thread and leave a transaction open: they have failed, and the caller has its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, IntegrityError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError
from django.test import override_settings

from i3tasks import task
from i3tasks.conf import get_config
from i3tasks.models import TaskExecution, TaskExecutionTry
from tests.shop.models import Order
from tests.support.databases import scratch

KEPT = f"kept_{os.getpid()}"  # processes that test side by side share the other database

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent", "other")]

LEFT = "django.db.transaction.TransactionManagementError"
HOOKS: list[str] = []


@pytest.fixture
def other(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A second database with one table."""
    monkeypatch.setattr(BaseDatabaseWrapper, "ensure_connection", _ensure_connection)
    settings = connections.settings["default"]
    name = settings["NAME"] if connection.vendor == "postgresql" else str(scratch() / "other.sqlite3")
    connections.settings["other"] = {**settings, "NAME": name}
    HOOKS.clear()
    try:
        run_on("other", f"CREATE TABLE {KEPT} (name varchar(20) PRIMARY KEY)")
        yield
        connections["other"].close()
        run_on("other", f"DROP TABLE {KEPT}")
        connections["other"].close()
    finally:
        with suppress(AttributeError):
            del connections["other"]
        del connections.settings["other"]


def _ensure_connection(found: Any) -> None:
    """Django's own, in whose place tests have one that opens those databases only that are in the settings."""
    if found.connection is None:
        with found.wrap_database_errors:
            found.connect()


def run_on(alias: str, sql: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)


def write(alias: str, name: str) -> None:
    if alias == "default":
        Order.objects.create(name=name)
    else:
        run_on(alias, f"INSERT INTO {KEPT} VALUES ('{name}')")


def written(alias: str) -> list[str]:
    table = Order._meta.db_table if alias == "default" else KEPT
    with connections[alias].cursor() as cursor:
        cursor.execute(f"SELECT name FROM {table} ORDER BY name")
        return [name for (name,) in cursor.fetchall()]


def enter_atomic(alias: str) -> None:
    transaction.atomic(using=alias).__enter__()
    transaction.on_commit(lambda: HOOKS.append("of the body"), using=alias)


def enter_two(alias: str) -> None:
    enter_atomic(alias)
    transaction.atomic(using=alias, savepoint=False).__enter__()


WAYS: dict[str, Any] = {
    "atomic": enter_atomic,
    "two atomics": enter_two,
    "autocommit": lambda alias: transaction.set_autocommit(False, using=alias),
    "begin": lambda alias: run_on(alias, "BEGIN"),
}


def leave(way: str, alias: str, then: str) -> str:
    WAYS[way](alias)
    write(alias, "lost")
    if then == "raise":
        raise KeyError("the body's own")
    return "done"


@task(max_retries=0)
def in_thread(way: str, alias: str, then: str) -> str:
    return leave(way, alias, then)


@task(max_retries=0)
async def in_loop(way: str, alias: str, then: str) -> str:
    return await sync_to_async(leave)(way, alias, then)


def forced(called: Any, *args: Any) -> None:
    with override_settings(I3TASKS=replace(get_config().settings, force_sync=True)):
        called.delay(*args)


def at_once(called: Any, *args: Any) -> None:
    expected = KeyError if "raise" in args else TransactionManagementError
    with pytest.raises(expected):
        called.sync_run(*args)


def assert_failed(error_class: str = LEFT) -> None:
    task_try = TaskExecutionTry.objects.get()
    assert (task_try.is_completed, task_try.is_success, task_try.error_class) == (True, False, error_class)
    assert TaskExecution.objects.get().outcome == "failed"


def assert_callers_again(alias: str) -> None:
    """The connection is in no transaction: what is written now stays, and hooks run."""
    found = connections[alias]
    assert (found.in_atomic_block, found.savepoint_ids, found.atomic_blocks) == (False, [], [])
    assert (found.needs_rollback, found.run_on_commit, found.get_autocommit()) == (False, [], True)
    write(alias, "after")
    found.close()
    assert written(alias) == ["after"]
    with transaction.atomic(using=alias):
        transaction.on_commit(lambda: HOOKS.append("of the caller"), using=alias)
    assert HOOKS == ["of the caller"]


RUNS = pytest.mark.parametrize("run", [at_once, forced])
BODIES = pytest.mark.parametrize("body", [in_thread, in_loop], ids=["thread", "loop"])
ALIASES = pytest.mark.parametrize("alias", ["default", "other"])


@RUNS
@BODIES
@ALIASES
@pytest.mark.parametrize("way", WAYS)
def test_it_has_failed_and_leaves_nothing(run: Any, body: Any, alias: str, way: str, events: list[str]) -> None:
    run(body, way, alias, "return")
    assert_failed()
    assert "transaction_left_open" in events
    assert_callers_again(alias)


@ALIASES
@pytest.mark.parametrize("way", WAYS)
def test_an_error_of_the_body_stays_the_reason(alias: str, way: str) -> None:
    at_once(in_thread, way, alias, "raise")
    assert_failed("KeyError")
    assert_callers_again(alias)


@BODIES
@ALIASES
@pytest.mark.parametrize("way", WAYS)
async def test_arun_is_the_same(body: Any, alias: str, way: str) -> None:
    with pytest.raises(TransactionManagementError, match="left a transaction open"):
        await body.arun(way, alias, "return")
    await sync_to_async(assert_failed)()
    await sync_to_async(assert_callers_again)(alias)


@RUNS
@BODIES
@ALIASES
@pytest.mark.parametrize(("way", "nested"), [("atomic", True), ("two atomics", False)])
def test_the_callers_own_transaction_goes_on(run: Any, body: Any, alias: str, way: str, nested: bool) -> None:
    with transaction.atomic(), transaction.atomic(using=alias):
        write(alias, "before")
        transaction.on_commit(lambda: HOOKS.append("of the caller"), using=alias)
        if nested:
            with transaction.atomic(using=alias):
                run(body, way, alias, "return")
        else:
            run(body, way, alias, "return")
        assert not connections[alias].needs_rollback
        write(alias, "later")
    assert_failed()
    assert written(alias) == ["before", "later"]
    assert HOOKS == ["of the caller"]
    assert connections[alias].get_autocommit()


@RUNS
def test_a_transaction_that_the_caller_has_not_written_in_goes_on(run: Any) -> None:
    with transaction.atomic(using="other"):
        run(in_thread, "atomic", "other", "return")
        write("other", "later")
    assert_failed()
    assert written("other") == ["later"]


@pytest.mark.parametrize("begin", ["begin", "autocommit"])
def test_a_callers_transaction_without_atomic_goes_on(begin: str) -> None:
    WAYS[begin]("other")
    write("other", "before")
    # PostgreSQL's driver refuses to change autocommit here; SQLite's does not. The body has failed either way.
    with pytest.raises(DatabaseError):
        in_thread.sync_run("two atomics" if begin == "autocommit" else "autocommit", "other", "return")
    write("other", "later")
    run_on("other", "COMMIT") if begin == "begin" else transaction.commit(using="other")
    assert TaskExecution.objects.get().outcome == "failed"
    connections["other"].close()
    assert written("other") == ["before", "later"]


@task(max_retries=0)
def break_it(alias: str) -> str:
    write(alias, "lost")
    transaction.on_commit(lambda: HOOKS.append("of the body"), using=alias)
    transaction.set_rollback(True, using=alias)
    return "done"


@ALIASES
def test_a_body_that_breaks_the_callers_transaction_has_failed(alias: str) -> None:
    with transaction.atomic(), transaction.atomic(using=alias):
        write(alias, "before")
        at_once(break_it, alias)
        write(alias, "later")
    assert_failed()
    assert written(alias) == ["before", "later"]
    assert HOOKS == []


@task(max_retries=0)
def twice(alias: str, catches: bool) -> str:
    write(alias, "lost")
    sql = f"INSERT INTO {KEPT} VALUES ('same')"
    run_on("other", sql)
    try:
        run_on("other", sql)
    except IntegrityError:
        if not catches:
            raise
    return "done"


def test_a_database_error_undoes_what_the_body_did_in_the_callers_transactions(events: list[str]) -> None:
    with transaction.atomic(), transaction.atomic(using="other"):
        write("other", "before")
        with pytest.raises(IntegrityError):
            twice.sync_run("default", catches=False)
        write("other", "later")
    assert_failed("django.db.utils.IntegrityError")
    assert (written("default"), written("other")) == ([], ["before", "later"])
    assert "transaction_left_open" not in events


@pytest.mark.postgres
def test_a_transaction_that_postgres_calls_failed_is_a_failure() -> None:
    with transaction.atomic(using="other"):
        write("other", "before")
        at_once(twice, "other", True)
        write("other", "later")
    assert_failed()
    assert written("other") == ["before", "later"]


@task(max_retries=0)
def in_order(alias: str) -> str:
    with transaction.atomic(using=alias):
        write(alias, "inner")
        transaction.on_commit(lambda: HOOKS.append("of the body"), using=alias)
    write(alias, "outer")
    return "done"


@ALIASES
def test_a_body_that_ends_what_it_began_has_succeeded(alias: str, events: list[str]) -> None:
    assert in_order.sync_run(alias).is_success
    with transaction.atomic(using=alias):
        run_on(alias, f"DELETE FROM {Order._meta.db_table if alias == 'default' else KEPT}")
        assert in_order.sync_run(alias).is_success
    assert written(alias) == ["inner", "outer"]
    assert HOOKS == ["of the body"] * 2
    assert "transaction_left_open" not in events


@task(max_retries=0)
def commit_the_callers() -> str:
    run_on("other", "COMMIT")
    return "done"


def test_a_body_that_ends_a_transaction_of_its_caller_has_failed() -> None:
    WAYS["begin"]("other")
    write("other", "before")
    with pytest.raises(TransactionManagementError, match="ended a transaction of its caller"):
        commit_the_callers.sync_run()
    assert_failed()

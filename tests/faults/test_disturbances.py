"""What disturbs without killing: signals, doubles, rollbacks, a broker that is away, open transactions."""

from __future__ import annotations

import signal
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from i3tasks.engine import outbox
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store.requests import TryRef
from tests.faults.world import ROUNDS, World, somewhere_in
from tests.shop.models import Run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60 + 60 * ROUNDS)]


def test_sigterm_under_load_uses_up_no_retry(either_world: World) -> None:
    world = either_world
    world.worker()
    for _ in range(ROUNDS):
        ending = world.worker()
        before = world.begun()
        world.load(150, 0.3)
        world.load(10, 6)  # longer than the drain
        world.until_begun(before + somewhere_in(100))
        ending.signal(signal.SIGTERM)
        assert ending.ends() == 0, ending.output
        assert "Traceback" not in ending.output
    world.until_finished(seconds=60)
    world.reckon(runs_a_try=1 + ROUNDS)  # a try that was handed back begins again
    assert not TaskExecutionTry.objects.filter(try_number__gt=1).exists()


def test_twenty_copies_of_one_message(either_world: World) -> None:
    """At once, over two workers: the body runs once."""
    world = either_world
    world.worker(), world.worker()
    for _ in range(3 * ROUNDS):
        handle = world.load(1, 0.2)[0]
        outbox.send([TryRef.of(handle.task_execution_try)] * 20)
        world.until_finished()
        outbox.send([TryRef.of(handle.task_execution_try)] * 20)
    world.load(5)
    world.until_finished()
    world.reckon()
    assert Run.objects.count() == TaskExecution.objects.count()


def test_what_is_rolled_back_never_runs(world: World) -> None:
    world.worker()
    for _ in range(20):
        try:
            with transaction.atomic():
                world.load(1)
                raise RuntimeError("the caller failed")
        except RuntimeError:
            world.names.pop()
    world.load(20)
    world.until_finished(20)
    world.reckon()
    assert Run.objects.count() == TaskExecution.objects.count() == 20


@pytest.mark.postgres
@pytest.mark.parametrize("table", ["taskexecutiontry", "taskexecution"])
@pytest.mark.parametrize("moment", ["waiting", "running"])
def test_an_open_transaction_of_another_process_holds_a_row(world: World, table: str, moment: str) -> None:
    """Its task waits for it; the neighbours, and their heartbeats, do not."""
    column = {"taskexecutiontry": "task_execution_id", "taskexecution": "id"}[table]
    held = world.load(1, 1.0)[0].task_execution_id
    if moment == "running":
        world.worker()
        world.until_begun(1)
    with _own_connection() as user:
        user.execute(f"SELECT * FROM i3tasks_{table} WHERE {column} = %s FOR UPDATE", [held])
        if moment == "waiting":
            world.worker()
        world.load(60, 4.0)  # longer than a lease: they live by their heartbeats
        world.until_finished(60)
        assert TaskExecution.objects.get(pk=held).outcome is None, "the row is held"
        user.rollback()
    world.until_finished()
    world.reckon()
    assert TaskExecutionTry.objects.exclude(task_execution=held).filter(try_number__gt=1).count() == 0


def _own_connection() -> Any:
    parameters = {key: value for key, value in connection.get_connection_params().items() if key in _PARTS}
    return psycopg.connect(**parameters)


_PARTS = ("dbname", "user", "password", "host", "port")

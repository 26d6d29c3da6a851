"""The promise in numbers (docs/guarantees.md): 600 calls on PostgreSQL, six kill -9s, twenty calls rolled back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store.states import LOST_CLASS
from tests.faults.world import CONCURRENCY, NO_EMULATOR, World, kill_9, somewhere_in
from tests.shop.ledger import slow_at_first, work
from tests.shop.models import Run
from tests.support.children import COMMAND, Child

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgres, pytest.mark.timeout(180)]

KILLS, CALLS, ROLLED_BACK = 6, 600, 20
LEASE_SECONDS = 5.0
RECOVERY = timedelta(seconds=LEASE_SECONDS + 5)


@pytest.fixture
def world(tmp_path: Path, settings: Any) -> Iterator[World]:
    """Its leases outlast the six kills, most of the time."""
    with World(settings, tmp_path / "emulator").open(lease_seconds=LEASE_SECONDS) as world:
        yield world


def test_six_hundred_calls_outlive_six_kills(world: World) -> None:
    workers = [_supervised(world) for _ in range(3)]
    for number in range(KILLS):
        before = world.begun()
        world.load(CALLS // KILLS, 0.4, task=slow_at_first)
        _rolled_back(ROLLED_BACK * (number + 1) // KILLS - ROLLED_BACK * number // KILLS)
        world.until_begun(before + somewhere_in(CALLS // KILLS))
        kill_9(world.busy_one(workers))
        killed_at = _database_time()
        workers.append(_supervised(world))
    world.until_finished(CALLS, seconds=90)
    world.reckon()
    assert TaskExecution.objects.count() == CALLS
    assert not Run.objects.filter(name="rolled back").exists()
    _recovered_in_time(killed_at)


def _supervised(world: World) -> Child:
    """Its start is not waited for."""
    return world.starting(COMMAND, "run-worker", NO_EMULATOR, *CONCURRENCY)


def _rolled_back(count: int) -> None:
    with transaction.atomic():
        work.delay_many([("rolled back",)] * count)
        transaction.set_rollback(True)


def _database_time() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now


def _recovered_in_time(killed_at: datetime) -> None:
    """By the rows' own times: each try that follows a lost one had begun so soon after the last kill.

    But for what was lost twice in a row: it may be what kills the workers, and each of them runs one such at a time.
    """
    lost = set(TaskExecutionTry.objects.filter(error_class=LOST_CLASS).values_list("task_execution", "try_number"))
    assert lost, "a process was killed in the middle of it"
    again = {(execution, number + 1) for execution, number in lost if (execution, number - 1) not in lost}
    tries = TaskExecutionTry.objects.filter(try_number__gt=1).values_list("task_execution", "try_number", "started_at")
    took = {key: began - killed_at for *key_, began in tries if (key := tuple(key_)) in again}
    assert took.keys() == again
    assert max(took.values()) <= RECOVERY

"""A process dies with tries in its hands, which it was to begin or to publish: others have them within seconds.

The grace of a publish is an hour here, so that it can't be what helps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from django.db.models import Max

from i3tasks import chain
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store.fallback import LONGEST_TAKEN
from i3tasks.types import DatabaseQueue
from tests.faults.points import EXIT_CODE
from tests.faults.test_crash_matrix import ENQUEUE
from tests.faults.test_silence import AT_REST, FALLBACK, LOST_AFTER, database_now
from tests.faults.world import NO_EMULATOR, World
from tests.shop.ledger import work
from tests.shop.models import Run
from tests.support.children import COMMAND, free_port

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

LONG: dict[str, Any] = {
    "fallback_seconds": FALLBACK,
    "lost_after_seconds": LOST_AFTER,
    "publish_grace_seconds": LOST_AFTER,
}


@pytest.fixture
def world(settings: Any, tmp_path: Path) -> Iterator[World]:
    with World(settings, tmp_path / "emulator").open(**LONG) as world:
        yield world


@pytest.fixture
def without_broker(settings: Any) -> Iterator[World]:
    with World(settings, None).open(f"127.0.0.1:{free_port()}", **LONG) as world:
        yield world


@pytest.fixture
def on_database_queue(settings: Any, without_broker: World) -> World:
    settings.I3TASKS = replace(settings.I3TASKS, default_queue=DatabaseQueue("local"), other_queues=())
    without_broker.children.changes["database_queue"] = "local"
    return without_broker


def at_rest(world: World, since: datetime) -> None:
    world.until_finished(seconds=120)
    last = TaskExecution.objects.aggregate(last=Max("finished_at"))["last"]
    rested, allowed = (last - since).total_seconds(), AT_REST + world.slowest_start
    print(f"at rest after {rested:.1f} of {allowed:.1f} s")
    assert rested <= allowed
    world.reckon()


def died(world: World, point: str) -> datetime:
    worker = world.starting(COMMAND, "run-worker", NO_EMULATOR, fault=point)
    assert worker.ends() == EXIT_CODE, worker.output
    return database_now()


@pytest.mark.parametrize("queue", ["without_broker", "on_database_queue"])
def test_a_worker_that_took_what_waits_and_dies_before_its_claims(request: Any, queue: str) -> None:
    world: World = request.getfixturevalue(queue)
    world.load(20)
    since = died(world, "taken waiting")
    assert TaskExecutionTry.objects.filter(started_at=None, dispatch_at__lte=since + LONGEST_TAKEN).count() == 20
    world.worker()
    at_rest(world, since)
    assert not world.lost_tries()


def test_a_worker_that_settled_and_dies_before_it_publishes_what_follows(world: World) -> None:
    handles = [chain(work.s(f"first {number}"), work.s(f"second {number}")).delay() for number in range(3)]
    since = died(world, "before follow-up")
    world.worker()
    at_rest(world, since)
    assert Run.objects.values("name").distinct().count() == 2 * len(handles)


def test_a_dispatcher_that_took_what_is_due_and_dies_before_it_publishes(world: World, sent: Any) -> None:
    world.load(20)
    TaskExecutionTry.objects.update(dispatch_at=database_now())
    since = died(world, "taken due")
    assert sent.messages, "and nothing was published"
    world.worker()
    at_rest(world, since)


@pytest.mark.parametrize("queue", ["world", "on_database_queue"])
def test_a_caller_that_dies_right_after_its_commit(request: Any, queue: str) -> None:
    world: World = request.getfixturevalue(queue)
    caller = world.starting("-c", ENQUEUE, fault="enqueued")
    assert caller.ends() == EXIT_CODE, caller.output
    since = database_now()
    world.names = [f"n{number}" for number in range(20)]
    world.worker()
    at_rest(world, since)

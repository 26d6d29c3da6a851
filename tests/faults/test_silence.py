"""Pub/Sub that is silent, gone or empty under a running worker: work goes on, and is done once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.db.models import F, Max
from django.utils import timezone

from i3tasks.broker import clients
from i3tasks.conf import get_config
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store.database import with_database_time
from i3tasks.store.health import health
from tests.faults.world import EITHER, ROUNDS, SHORT, World, kill_9, somewhere_in
from tests.shop.ledger import work_pushed
from tests.support.children import free_port
from tests.support.google_emulator import GoogleEmulator
from tests.support.rigs import until

FALLBACK = 2.0
KILLS = int(os.environ.get("I3TASKS_FAULT_KILLS", "6"))
LEAST = 10.0
AT_REST = SHORT["lease_seconds"] + FALLBACK + LEAST
"""Seconds within which all is done once the last fault is over: a lease, the fallback's patience, and a little."""
CALLS_A_START = 200
"""Calls that a worker ends in the time that it takes to start, though most messages go to the dead."""
LOST_AFTER = 3600
"""As in production, so that nothing but the second way can be what helps."""

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120 + 120 * ROUNDS)]


@pytest.fixture(params=EITHER)
def silent_world(request: pytest.FixtureRequest, settings: Any, tmp_path: Path) -> Iterator[World]:
    """On an emulator of its own, and with the fallback's patience as the only short time."""
    google = None
    if request.param == "google":
        request.getfixturevalue("google_emulator")  # skips, or fails, where it is missing
        google = GoogleEmulator()
    world = World(settings, tmp_path / "emulator", google)
    with world.open(fallback_seconds=FALLBACK, lost_after_seconds=LOST_AFTER) as world:
        yield world


def at_rest(world: World) -> None:
    """All that was asked for ends in time after the last fault, by the database's clock.

    What is left to run takes its time, too, and a slow machine more of it: as much as the workers took to start.
    """
    since, left = database_now(), TaskExecution.objects.filter(outcome__isnull=True).count()
    world.until_finished(seconds=300)
    last = TaskExecution.objects.aggregate(last=Max("finished_at"))["last"]
    rested, allowed = (last - since).total_seconds(), AT_REST + world.slowest_start * (1 + left / CALLS_A_START)
    print(f"{left} calls at rest after {rested:.1f} of {allowed:.1f} s; slowest start {world.slowest_start:.1f} s")
    assert rested <= allowed


def database_now() -> datetime:
    """Its clock is one for the test and the workers."""
    return with_database_time(TaskExecution.objects).values_list("database_time", flat=True)[:1].get()


def test_six_kills_of_a_worker_under_load(silent_world: World) -> None:
    """Google's emulator goes on feeding the streams of the dead, and is not begun anew."""
    world = silent_world
    for _ in range(ROUNDS):
        world.load(600, 0.1)
        worker = world.worker()
        for _ in range(KILLS):
            world.until_begun(min(world.begun() + somewhere_in(60), len(world.names)), 60)
            kill_9(worker)
            worker = world.worker()
        at_rest(world)
    world.reckon()
    assert world.lost_tries()


def test_a_broker_that_comes_back_empty(silent_world: World) -> None:
    world = silent_world
    world.load(60)
    until(lambda: TaskExecutionTry.objects.filter(publish_count=1).count() == 60)
    world.restart_emulator(None)
    world.worker()
    at_rest(world)
    world.load(100, 0.1)
    world.until_begun(60 + somewhere_in(50))
    world.restart_emulator(None)
    at_rest(world)
    world.reckon()
    assert not world.lost_tries()


def _broker_is_a_warning() -> bool:
    """To a process that has published nothing: the worker's row says so."""
    report = async_to_sync(health)(timezone.now())
    return report["status"] == "warning" and any("broker unavailable" in problem for problem in report["problems"])


def test_no_broker_from_start_to_end(settings: Any) -> None:
    world = World(settings, None)
    with world.open(f"127.0.0.1:{free_port()}", fallback_seconds=FALLBACK, lost_after_seconds=LOST_AFTER) as world:
        worker = world.worker("--concurrency", "100")
        world.load(200)
        at_rest(world)
        until(_broker_is_a_warning)
        world.load(50)
        kill_9(worker)
        world.worker("--concurrency", "100")
        at_rest(world)
        world.reckon()


def test_a_subscription_that_is_deleted_under_a_running_worker(silent_world: World) -> None:
    """With all that waits in it."""
    world = silent_world
    world.worker()
    for _ in range(2):
        before = world.begun()
        world.load(200, 0.1)
        world.until_begun(before + somewhere_in(60))
        names = get_config().queue(None)
        publisher, subscriber = clients.make_admin(get_config().pubsub)
        try:
            subscriber.delete_subscription(subscription=names.subscription, timeout=10)
        finally:
            clients.close(publisher)
            clients.close(subscriber)
        at_rest(world)
    world.reckon()
    assert not world.lost_tries()


def test_what_a_push_queue_lost_is_pushed_again(silent_world: World) -> None:
    """The site has only its own requests to make passes; there is no beat."""
    world = silent_world
    world.load(40, task=work_pushed)
    until(lambda: TaskExecutionTry.objects.filter(publish_count=1).count() == 40)
    world.restart_emulator(None)
    call_command("i3tasks_ensure_pubsub")
    world.site()
    world.worker()  # its dispatcher is that of another process
    at_rest(world)
    world.reckon()
    assert not world.lost_tries()


def test_a_long_push_backlog_that_moves_is_not_pushed_again(silent_world: World) -> None:
    """Its last calls wait for far longer than the fallback's patience."""
    world = silent_world
    call_command("i3tasks_ensure_pubsub")
    world.site()
    world.worker()  # its dispatcher looks for quiet queues all the time
    calls = 40 if isinstance(world.emulator, GoogleEmulator) else 400  # Google's pushes few at a time
    world.load(calls, 1.0, task=work_pushed)
    world.until_finished(seconds=200)
    waited = TaskExecutionTry.objects.aggregate(longest=Max(F("started_at") - F("asked_at")))["longest"].total_seconds()
    print(f"the last of {calls} calls waited for {waited:.1f} s")
    assert waited > 2 * FALLBACK
    assert set(TaskExecutionTry.objects.values_list("publish_count", flat=True)) == {1}
    world.reckon()

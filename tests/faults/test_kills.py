"""kill -9 of everything, at random instants, under load: nothing is lost, stuck or done twice."""

from __future__ import annotations

import random
from typing import Any

import httpx
import pytest

from i3tasks.calls.handles import ChainHandle
from i3tasks.models import ExecutionOutcome, TaskExecution, TaskExecutionTry
from tests.faults.world import EITHER, ROUNDS, World, kill_9, somewhere_in
from tests.shop.ledger import die, work, work_in_thread, work_pushed
from tests.shop.models import Run
from tests.support.children import Child
from tests.support.rigs import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60 + 60 * ROUNDS)]


def test_workers_killed_at_random_instants(breakable_world: World) -> None:
    world = breakable_world
    workers = [world.worker(), world.worker()]
    for _ in range(2 * ROUNDS):
        before = world.begun()
        world.load(100)
        world.load(20, task=work_in_thread)
        world.until_begun(before + somewhere_in(100), 60)
        kill_9(workers.pop(random.randrange(2)))
        workers.append(world.worker())
    world.until_finished(seconds=120)
    world.reckon()


def test_the_emulator_killed_and_restarted_over_its_folder(world: World) -> None:
    world.worker(), world.worker()
    for _ in range(2 * ROUNDS):
        before = world.begun()
        world.load(100)
        world.until_begun(before + somewhere_in(80))
        world.restart_emulator(world.data)
        world.load(20)
    world.until_finished(seconds=60)
    world.reckon()
    assert not world.lost_tries(), "the workers lived, so nothing used up a retry"


def test_what_the_broker_confirmed_and_then_lost_comes_back(world: World) -> None:
    """Emptied twice: with everything waiting in it, and under load."""
    world.load(60)
    until(lambda: TaskExecutionTry.objects.filter(publish_count=1).count() == 60)
    world.restart_emulator(None)
    world.worker()
    world.until_begun(60)
    world.load(100)
    world.until_begun(60 + somewhere_in(80))
    world.restart_emulator(None)
    world.until_finished(seconds=60)
    world.reckon()
    assert not world.lost_tries()


@pytest.mark.parametrize("either_world", EITHER, indirect=True)
def test_a_web_process_killed_while_it_runs_what_was_pushed(either_world: World) -> None:
    world = either_world
    site = world.site()
    for _ in range(ROUNDS):
        before = world.begun()
        world.load(40, 0.3, task=work_pushed)
        world.until_begun(before + somewhere_in(20))
        kill_9(site)
        site = world.site()
        until(lambda: _beaten(world), 60, lambda: world.unfinished(TaskExecution.objects.count()))
    world.reckon()
    assert world.lost_tries()


def _beaten(world: World) -> bool:
    """As Cloud Scheduler does each minute, only sooner."""
    assert httpx.post(f"http://127.0.0.1:{world.port}/i3/tasks-beat/", timeout=10).status_code == 200
    return world.finished() == TaskExecution.objects.count()


def test_what_runs_beside_a_killer_is_kept_apart_from_it(world: World) -> None:
    """Without that, all that a killer took with it runs beside it again, and is as often lost as it is."""
    worker = world.worker()
    killer = die.delay("killer")
    work.using(max_retries=2).delay_many([(f"neighbour {number}", 0.2) for number in range(12)])
    _until_finished(world, worker)
    _died_three_times(killer)


def test_a_body_that_kills_its_process_stops_after_its_retries(world: World) -> None:
    worker = world.worker()
    world.load(10, 0.1)
    killer = die.delay("killer")
    world.load(10, 0.1)
    _until_finished(world, worker)
    _died_three_times(killer)
    world.reckon(successes=False)


def _until_finished(world: World, worker: Child) -> None:
    """Start the worker again whenever it has died, as a supervisor does."""
    workers = [worker]

    def have_finished() -> bool:
        if workers[-1].process.poll() is not None:
            assert workers[-1].ends() == 9
            workers.append(world.worker())
        return world.finished() == TaskExecution.objects.count()

    until(have_finished, 90, lambda: world.unfinished(TaskExecution.objects.count()))


def _died_three_times(killer: ChainHandle[Any]) -> None:
    """Its first try and its two retries, and only its own are used up."""
    assert Run.objects.filter(name="killer").count() == 3
    failed = TaskExecution.objects.exclude(outcome=ExecutionOutcome.SUCCESS)
    assert [(row.pk, row.outcome) for row in failed] == [(killer.task_execution_id, ExecutionOutcome.FAILED)]

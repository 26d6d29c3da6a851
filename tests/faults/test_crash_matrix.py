"""A process that ends between any two steps of a try, row by row (docs/guarantees.md)."""

from __future__ import annotations

import pytest

from i3tasks import chain, group
from i3tasks.models import TaskExecution, TaskExecutionTry
from tests.faults.points import EXIT_CODE
from tests.faults.world import World
from tests.shop.ledger import work
from tests.shop.models import Run
from tests.support.rigs import NotingPublisher

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]


@pytest.fixture
def world(quick_world: World) -> World:
    return quick_world


CALLS, CHAINS, GROUPS = 6, 2, 2
EXECUTIONS = CALLS + CHAINS * 2 + GROUPS * 3


def enqueue_everything(world: World) -> None:
    """Calls, chains and groups: tries of every origin."""
    world.load(CALLS)
    for number in range(CHAINS):
        chain(work.s(f"first {number}"), work.s(f"second {number}")).delay()
    for number in range(GROUPS):
        members = [work.s(f"member {number} {index}") for index in range(2)]
        group(*members).then(work.s(f"callback {number}")).delay()


def reckon(world: World) -> None:
    world.until_finished(EXECUTIONS)
    world.reckon()
    names = list(Run.objects.values_list("name", flat=True).distinct())
    assert len(names) == EXECUTIONS == TaskExecution.objects.count(), "every follow-up exactly once"


@pytest.mark.parametrize(
    "point",
    [
        "received",
        "claiming",
        "claimed",
        "before body",
        "after body",
        "settling",
        "settled",
        "before follow-up",
        "after follow-up",
        "before ack",
        "after ack",
        "settled:2",
        "before follow-up:2",
    ],
)
def test_a_worker_that_dies(world: World, point: str) -> None:
    enqueue_everything(world)
    broken = world.worker(fault=point)
    assert broken.ends() == EXIT_CODE
    world.worker()
    reckon(world)


def test_a_dispatcher_that_dies_before_it_publishes_what_it_took(world: World, sent: NotingPublisher) -> None:
    enqueue_everything(world)
    assert sent.messages, "and nothing was published"
    assert world.worker(fault="taken due").ends() == EXIT_CODE
    world.worker()
    reckon(world)


def test_a_dispatcher_that_dies_before_it_publishes_the_next_tries(world: World) -> None:
    enqueue_everything(world)
    assert world.worker(fault="before body:4").ends() == EXIT_CODE
    assert world.worker(fault="expired").ends() == EXIT_CODE
    world.worker()
    reckon(world)


ENQUEUE = """
import django
django.setup()
from tests.shop.ledger import work
work.delay_many([(f"n{number}",) for number in range(20)])
"""


@pytest.mark.parametrize("point", ["enqueued", "published", "confirmation", "confirmed"])
def test_a_caller_that_dies(world: World, point: str) -> None:
    """After its commit: before the publish, before its confirmation, and before and after that was noted."""
    caller = world.starting("-c", ENQUEUE, fault=point)
    assert caller.ends() == EXIT_CODE, caller.output
    assert TaskExecution.objects.count() == 20
    world.names = [f"n{number}" for number in range(20)]
    world.worker()
    world.until_finished(20)
    world.reckon()


@pytest.mark.parametrize("point", ["claim's reply", "settlement's reply", "claim's reply:2", "settlement's reply:2"])
def test_a_commit_whose_reply_is_lost(world: World, point: str) -> None:
    """Asked again with the same token, the database says what it said before."""
    enqueue_everything(world)
    worker = world.worker(fault=point)
    worker.says("a reply is lost")
    reckon(world)
    assert not world.lost_tries(), "the lease was known to be ours"
    assert TaskExecutionTry.objects.count() == EXECUTIONS, "nothing was tried again"


def test_a_caller_that_dies_before_its_commit(world: World) -> None:
    rolled_back = world.starting("-c", ROLLED_BACK)
    assert rolled_back.ends() == 7, rolled_back.output
    world.worker()
    world.load(5)
    world.until_finished(5)
    world.reckon()
    assert TaskExecution.objects.count() == 5


ROLLED_BACK = """
import os
import django
django.setup()
from django.db import transaction
from tests.shop.ledger import work
with transaction.atomic():
    work.delay_many([(f"n{number}",) for number in range(20)])
    os._exit(7)
"""

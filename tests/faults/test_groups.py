"""A thousand members, killed workers and doubled messages: the join fires once."""

from __future__ import annotations

import pytest

from i3tasks import RESULT, group
from i3tasks.engine.outbox import send
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store.requests import TryRef
from i3tasks.tasks import collect
from tests.faults.world import ROUNDS, World, kill_9, somewhere_in
from tests.shop.ledger import work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60 + 60 * ROUNDS)]

MEMBERS = 1000


def doubled(share: int) -> None:
    """The messages of some tries, running and finished ones too, once more."""
    tries = list(TaskExecutionTry.objects.select_related("task_execution").order_by("?")[:share])
    for task_try in tries:
        task_try.dispatch_at = task_try.dispatch_at or task_try.asked_at  # only the message is wanted
    send(map(TryRef.of, tries))


def test_a_group_of_a_thousand_calls_back_once(world: World) -> None:
    workers = [world.worker(), world.worker()]
    names = [f"n{number}" for number in range(MEMBERS)]
    started = group(work.s(name, 0.2) for name in names).then(collect.s(RESULT)).delay()
    for killed in range(3 * ROUNDS):
        world.until_begun(min(killed * MEMBERS // (3 * ROUNDS + 1) + somewhere_in(200), MEMBERS - 100))
        doubled(100)
        kill_9(world.busy_one(workers))
        workers.append(world.worker())
    world.until_finished(MEMBERS + 1, seconds=60)
    doubled(300)
    world.load(20)
    world.until_finished(MEMBERS + 21)
    started.refresh_from_db()
    assert (started.status, started.completed_count, started.failed_count) == ("success", MEMBERS, 0)
    assert TaskExecution.objects.get(task_name="collect").task_args == [names]
    world.reckon()
    assert world.lost_tries(), "a process was killed in the middle of it"

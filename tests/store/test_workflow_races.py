"""Workflows while several connections work on them at once."""

import random
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from i3tasks import RESULT, chain, group
from i3tasks.core.outcome import Outcome, Success
from i3tasks.models import TaskExecution, TaskExecutionTry, TaskGroup
from i3tasks.store.audit import audit
from i3tasks.store.claims import claim
from i3tasks.store.requests import LOCKED, Claimed, Settlement
from i3tasks.store.settle import settle
from tests.shop.flows import note, total
from tests.store.helpers import failure, in_threads, lease, queries_of, request, says

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("sent"),
    pytest.mark.timeout(300),
]

ROUNDS = 100
DONE = Success(1)


def settled(settlements: Sequence[Settlement]) -> None:
    """Settle as the writer does: a row that is locked is asked for again."""
    while settlements:
        answers = settle(settlements)
        settlements = [item for item, answer in zip(settlements, answers, strict=True) if answer is LOCKED]


def collide(*sides: Sequence[Callable[[], Any]]) -> None:
    """The n-th of each side at the same time, round by round."""
    at_once = threading.Barrier(len(sides), timeout=60)

    def run(side: Sequence[Callable[[], Any]]) -> None:
        for turn in side:
            at_once.wait()
            turn()

    in_threads([partial(run, side) for side in sides])


def begun(workflows: Sequence[Any]) -> tuple[list[Any], list[Claimed]]:
    """Their handles, and the leases on their first steps."""
    handles = [workflow.delay() for workflow in workflows]
    return handles, lease(*(handle.task_execution_try for handle in handles))


def settling(leases: Sequence[Claimed], outcome: Outcome) -> list[Callable[[], Any]]:
    return [partial(settled, [says(claimed, outcome)]) for claimed in leases]


def test_then_while_the_call_ends() -> None:
    handles, leases = begun([note.s(f"n{n}") for n in range(ROUNDS)])
    names = ("one", "two")
    collide(
        settling(leases, DONE), *([partial(handle.then, note, name, RESULT) for handle in handles] for name in names)
    )
    for _ in range(2):
        firsts = TaskExecutionTry.objects.filter(is_completed=False).select_related("task_execution")
        assert len(firsts) == ROUNDS, "each has led to one step"
        settled([says(claimed, DONE) for claimed in lease(*firsts)])
    assert not TaskExecutionTry.objects.filter(is_completed=False).exists()
    for name in names:
        assert TaskExecution.objects.filter(task_args=[name, 1], outcome="success").count() == ROUNDS
    assert audit() == []


def test_then_while_the_group_in_the_chain_ends() -> None:
    handles = [chain(group(note.s(f"n{n}"))).delay() for n in range(ROUNDS)]
    leases = lease(*TaskExecutionTry.objects.select_related("task_execution").order_by("pk"))
    collide(settling(leases, DONE), [partial(handle.then, note, "next", RESULT) for handle in handles])
    assert TaskExecution.objects.filter(task_args=["next", [1]]).count() == ROUNDS
    assert audit() == []


@pytest.mark.parametrize("outcome", [DONE, failure(delay=0), failure()])
def test_cancel_while_the_call_ends(outcome: Outcome) -> None:
    """The cancellation finds what the settlement writes: the next try, or the next step."""
    handles, leases = begun([chain(note.s(f"n{n}"), note.s("next"), note.s("last")) for n in range(ROUNDS)])
    collide(settling(leases, outcome), [handle.cancel for handle in handles])
    assert not TaskExecutionTry.objects.filter(is_completed=False).exists()
    assert not TaskExecution.objects.filter(outcome__isnull=True).exists()
    assert not TaskExecution.objects.filter(task_args=["last"]).exists()
    assert audit() == []


def test_ten_thousand_members_settled_from_four_threads() -> None:
    started = group(note.s(f"n{n}") for n in range(10_000)).then(total.s(RESULT)).delay()
    tries = list(TaskExecutionTry.objects.select_related("task_execution"))
    random.Random(4).shuffle(tries)
    batches = [tries[at : at + 250] for at in range(0, len(tries), 250)]

    def work(mine: Sequence[list[TaskExecutionTry]]) -> None:
        for batch in mine:
            answers = claim([request(item) for item in batch], wait=True)
            leases = [answer for answer in answers if isinstance(answer, Claimed)]
            settled([says(claimed, DONE) for claimed in leases])
            settled([says(claimed, DONE) for claimed in leases[:50]])  # twice

    in_threads([partial(work, batches[n::4]) for n in range(4)])
    started.refresh_from_db()
    assert (started.status, started.completed_count, started.failed_count) == ("success", 10_000, 0)
    callback = TaskExecution.objects.get(task_name="total")
    assert callback.task_args == [[1] * 10_000]
    assert audit() == []


def test_nested_groups_do_not_deadlock() -> None:
    """Members of the inner and of the outer groups end in one batch, in any order, on four connections."""
    for number in range(6):
        inner = [group(*(note.s(f"{number}-{n}-{m}") for m in range(6)), wait_for_all=True) for n in range(8)]
        group(*inner, *(note.s(f"{number}-{n}") for n in range(40)), wait_for_all=True).then(note.s("all")).delay()
    tries = list(TaskExecutionTry.objects.select_related("task_execution"))
    random.Random(1).shuffle(tries)
    leases = lease(*tries)

    def work(mine: Sequence[Claimed]) -> None:
        for at in range(0, len(mine), 8):
            settled([says(claimed, failure()) for claimed in mine[at : at + 8]])

    in_threads([partial(work, leases[n::4]) for n in range(4)])
    assert set(TaskGroup.objects.values_list("status", flat=True)) == {"failed"}
    assert audit() == []


@pytest.mark.parametrize("outcome", [DONE, failure()])
def test_a_batch_takes_as_many_statements_however_large_it_is(outcome: Outcome) -> None:
    group((note.s(f"n{n}") for n in range(200)), wait_for_all=True).then(note.s("all")).delay()
    leases = lease(*TaskExecutionTry.objects.select_related("task_execution"))
    few = queries_of(lambda: settle([says(claimed, outcome) for claimed in leases[:2]]))
    many = queries_of(lambda: settle([says(claimed, outcome) for claimed in leases[2:150]]))
    assert many == few


def test_cancelling_a_large_group_takes_few_statements() -> None:
    started = group(note.s(f"n{n}") for n in range(500)).delay()
    assert queries_of(started.cancel) < 36

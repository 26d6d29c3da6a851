"""`Task.discard`: what waits of a task is deleted, and nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from i3tasks import chain, group
from i3tasks.exceptions import ArgumentError, I3TasksError
from i3tasks.models import TaskExecution
from i3tasks.store.settle import settle
from tests.shop.flows import double, note
from tests.shop.tasks import add, fail
from tests.store.helpers import failure, lease, says

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("sent")]


def left() -> set[int]:
    return set(TaskExecution.objects.values_list("pk", flat=True))


def tried(times: int) -> int:
    """A call whose body has failed so often, and which waits for its next try."""
    handle = fail.using(max_retries=9).delay()
    assert handle.task_execution is not None
    for _ in range(times):
        (claimed,) = lease(handle.task_execution.tries.get(is_completed=False))
        settle([says(claimed, failure(delay=0))])
    return handle.task_execution.pk


def test_what_waits_of_a_task_goes_and_what_runs_or_has_ended_stays() -> None:
    other = double.delay(1).task_execution_id
    running, ended = add.delay(1, 1), add.delay(1, 2)
    for handle in (running, ended):
        assert handle.task_execution_try is not None
        lease(handle.task_execution_try)
    ended.cancel()
    add.delay(1, 3)
    add.using(run_after=timedelta(days=1)).delay(1, 4)

    assert add.discard() == 2
    assert left() == {other, running.task_execution_id, ended.task_execution_id}
    assert add.discard() == 0


def test_min_tries_means_those_whose_tries_have_begun_so_often() -> None:
    never, once, thrice = tried(0), tried(1), tried(3)

    assert fail.discard(min_tries=2) == 1
    assert left() == {never, once}
    assert fail.discard(min_tries=1) == 1
    assert left() == {never}
    assert thrice not in left()


def test_with_a_queue_only_calls_on_it_are_meant() -> None:
    here = add.delay(1, 2).task_execution_id
    add.using(queue_name="heavy").delay(1, 2)

    assert add.using(queue_name="heavy").discard() == 1
    assert left() == {here}


def test_what_a_group_needs_stays() -> None:
    chain(group(double.s(1), double.s(2)), note.s("end")).delay()
    double.delay(3)

    assert double.discard() == 1
    assert TaskExecution.objects.count() == 2


def test_it_is_part_of_the_callers_transaction() -> None:
    kept = add.delay(1, 2).task_execution_id
    with transaction.atomic():
        assert add.discard() == 1
        transaction.set_rollback(True)
    assert left() == {kept}


@pytest.mark.parametrize(
    ("changes", "min_tries", "problem"),
    [({}, -1, "not -1"), ({}, True, "not True"), ({}, "3", "not '3'"), ({"priority": 5}, 0, "leave priority out")],
)
def test_what_means_nothing_is_refused(changes: dict[str, Any], min_tries: Any, problem: str) -> None:
    kept = add.delay(1, 2).task_execution_id
    with pytest.raises(ArgumentError, match=problem):
        add.using(**changes).discard(min_tries=min_tries)
    assert left() == {kept}


@pytest.mark.django_db(transaction=True)
async def test_adiscard_for_coroutines() -> None:
    await add.adelay(1, 2)

    with pytest.raises(I3TasksError, match="adiscard"):
        add.discard()
    assert await add.adiscard() == 1

"""A group is decided once: the second decision changes nothing."""

from collections.abc import Callable

import pytest
from django.utils import timezone

from i3tasks import RESULT, group
from i3tasks.core.outcome import Success
from i3tasks.models import TaskExecution, TaskGroup
from i3tasks.store.audit import audit
from i3tasks.store.settle import settle
from i3tasks.store.workflows import Plan
from tests.shop.flows import note
from tests.store.helpers import failure, lease, says

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("sent")]


def fire(row: TaskGroup) -> None:
    plan = Plan(timezone.now())
    plan.fire(row, None)
    plan.write()


def fail(row: TaskGroup) -> None:
    plan = Plan(timezone.now())
    plan.fail(row)
    plan.write()


@pytest.mark.parametrize("together", [True, False])
def test_members_beyond_the_announced_number_are_refused_and_told_of(together: bool, events: list[str]) -> None:
    """Those that end first count, whether the others end in the same batch or later, well or badly."""
    shared = TaskGroup.create(note, 2, ["all"])
    tries = [note.delay(name, __i3group__=shared).task_execution_try for name in "abcd"]  # type: ignore[call-arg]
    outcomes = [Success(None), Success(None), failure(), Success(None)]
    ends = [says(claimed, outcome) for claimed, outcome in zip(lease(*tries), outcomes, strict=True)]
    for batch in [ends] if together else [[end] for end in ends]:
        settle(batch)
    shared.refresh_from_db()
    assert (shared.completed_count, shared.failed_count, shared.status) == (2, 0, "success")
    assert TaskExecution.objects.filter(task_args=["all"]).count() == 1
    assert events.count("member_not_counted") == (1 if together else 2)
    assert audit() == []


def test_a_step_that_was_to_join_a_deleted_group_runs_without_it() -> None:
    """A group that has failed may be old enough to be deleted, while a chain that leads to it still runs."""
    shared = TaskGroup.create(note, 2, ["all"])
    handle = note.delay("a").then(note, "b", __i3group__=shared)
    shared.delete()
    settle([says(claimed, Success(1)) for claimed in lease(handle.task_execution_try)])  # type: ignore[arg-type]
    assert TaskExecution.objects.get(task_args=["a"]).outcome == "success"
    assert TaskExecution.objects.get(task_args=["b"]).task_group_id is None


@pytest.mark.parametrize("second", [fire, fail])
@pytest.mark.parametrize("first", [fire, fail])
def test_the_first_decision_is_the_only_one(
    first: Callable[[TaskGroup], None], second: Callable[[TaskGroup], None]
) -> None:
    row = group(note.s(1), note.s(2)).then(note.s(RESULT)).otherwise(note.s()).delay()
    first(row)
    row.refresh_from_db()
    decided = row.status, row.finished_at, TaskExecution.objects.count()
    assert decided[::2] == ({fire: "success", fail: "failed"}[first], 3)
    second(row)
    row.refresh_from_db()
    assert (row.status, row.finished_at, TaskExecution.objects.count()) == decided

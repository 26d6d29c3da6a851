"""A group is decided once, whoever else comes to a decision."""

from collections.abc import Callable

import pytest
from django.utils import timezone

from i3tasks import RESULT, group
from i3tasks.models import TaskExecution, TaskGroup
from i3tasks.store.workflows import Plan
from tests.shop.flows import note

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("sent")]


def fire(row: TaskGroup) -> None:
    plan = Plan(timezone.now())
    plan.fire(row, None)
    plan.write()


def fail(row: TaskGroup) -> None:
    plan = Plan(timezone.now())
    plan.fail(row, None)
    plan.write()


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

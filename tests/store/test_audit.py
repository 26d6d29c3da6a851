"""The audit finds what does not add up, and nothing where everything does."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.test import override_settings
from django.utils import timezone

from i3tasks import chain
from i3tasks.models import TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup
from i3tasks.store.audit import audit
from i3tasks.types import I3TasksSettings
from tests.shop.flows import break_down, note
from tests.shop.tasks import add, fail

pytestmark = pytest.mark.django_db


def run_some() -> None:
    with override_settings(I3TASKS=I3TasksSettings(force_sync=True)):
        add.delay(1, 2)
        fail.delay("no")
        chain(note.s("a"), note.s("b"), break_down.s(), note.s("never")).delay()
        shared = TaskGroup.create(callback=note, total_count=1, args=["all"])
        note.delay("member", __i3group__=shared)
    add.delay(3, 4)
    add.using(run_after=60).delay(3, 4)
    cancelled = add.delay(5, 6)
    cancelled.cancel()


def test_what_ran_well_or_badly_adds_up() -> None:
    run_some()
    assert audit() == []


def test_rows_of_django_i3tasks_are_no_findings() -> None:
    execution = TaskExecution.objects.create(task_name="add", task_path="shop.tasks")
    TaskExecutionTry.objects.create(task_execution=execution, is_completed=True, is_success=True)
    TaskExecutionTry.objects.create(task_execution=execution, try_number=2, finished_at=timezone.now())
    assert audit() == []


def done() -> TaskExecutionTry:
    return TaskExecutionTry.objects.filter(is_success=True).earliest("pk")


BREAKS: dict[str, Callable[[], object]] = {
    "try completed without a result": lambda: TaskExecutionResult.objects.filter(task_execution_try=done()).delete(),
    "try completed and still leased or due": lambda: TaskExecutionTry.objects.filter(pk=done().pk).update(
        dispatch_at=timezone.now()
    ),
    "lease long expired": lambda: TaskExecutionTry.objects.filter(is_completed=False).update(
        lease_until=timezone.now() - timedelta(hours=1)
    ),
    "publish long overdue": lambda: TaskExecutionTry.objects.filter(is_completed=False).update(
        dispatch_at=timezone.now() - timedelta(hours=1)
    ),
    "execution that succeeded more than once": lambda: TaskExecutionTry.objects.create(
        task_execution=done().task_execution, try_number=2, is_completed=True, is_success=True
    ),
    "execution whose tries have gaps": lambda: TaskExecutionTry.objects.filter(is_completed=False).update(try_number=5),
    "execution finished with an unfinished try": lambda: TaskExecutionTry.objects.create(
        task_execution=done().task_execution, try_number=2
    ),
    "execution unfinished without an unfinished try": lambda: TaskExecution.objects.filter(
        pk=done().task_execution_id
    ).update(outcome=None),
    "execution called a success without one": lambda: TaskExecution.objects.filter(outcome="failed").update(
        outcome="success"
    ),
    "execution without a try": lambda: TaskExecution.objects.create(task_name="x", task_path="y"),
    "chain that did not go on after a success": lambda: TaskExecution.objects.filter(previous__isnull=False).update(
        previous=None
    ),
    "group that waits for nobody": lambda: TaskGroup.objects.update(status="pending"),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_it_finds(rule: str) -> None:
    run_some()
    BREAKS[rule]()
    assert rule in [finding.rule for finding in audit()]

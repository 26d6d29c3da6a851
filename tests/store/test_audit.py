"""The audit finds what does not add up, and nothing where everything does."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db.models.functions import Now
from django.test import override_settings
from django.utils import timezone

from i3tasks import chain
from i3tasks.models import GroupSlice, TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup
from i3tasks.store.audit import audit, rules
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


def test_nor_is_what_its_workers_leave_behind() -> None:
    """It completes no try that failed, nor one whose worker died; a worker of ours may run the retry."""
    at = timezone.now() - timedelta(days=1)
    for outcome in (None, "success"):
        execution = TaskExecution.objects.create(task_name="add", task_path="shop.tasks", outcome=outcome)
        failed = TaskExecutionTry.objects.create(task_execution=execution, started_at=at, finished_at=at)
        TaskExecutionResult.objects.create(task_execution_try=failed, result='"no"')
        by_result = TaskExecutionTry.objects.create(task_execution=execution, try_number=2, started_at=at)
        TaskExecutionResult.objects.create(task_execution_try=by_result, result='"no"')
        TaskExecutionTry.objects.create(task_execution=execution, try_number=3, started_at=at)
        last = {"is_completed": True, "is_success": True, "claim_token": uuid4(), "finished_at": at} if outcome else {}
        latest = TaskExecutionTry.objects.create(task_execution=execution, try_number=4, started_at=at, **last)
        if outcome:
            TaskExecutionResult.objects.create(task_execution_try=latest, result=1)
    assert audit() == []


def execution(**columns: Any) -> TaskExecution:
    return TaskExecution.objects.create(task_name="add", task_path="shop.tasks", **columns)


def ended(of: TaskExecution | None = None, *, well: bool = True, number: int = 1, **columns: Any) -> TaskExecutionTry:
    """A try that has ended, of an execution that says so, unless `of` is another one."""
    at = timezone.now()
    of = of or execution(outcome="success" if well else "failed", finished_at=at)
    given = {"is_completed": True, "is_success": well, "claim_token": uuid4(), "started_at": at, "finished_at": at}
    task_try = TaskExecutionTry.objects.create(task_execution=of, try_number=number, **{**given, **columns})
    TaskExecutionResult.objects.create(task_execution_try=task_try, result=1)
    return task_try


def waiting(of: TaskExecution | None = None, **columns: Any) -> TaskExecutionTry:
    given = {"task_execution": of or execution(), "dispatch_at": SOON()}
    return TaskExecutionTry.objects.create(**{**given, **columns})


def running(**columns: Any) -> TaskExecutionTry:
    given = {"started_at": timezone.now(), "lease_until": SOON(), "claim_token": uuid4(), "dispatch_at": None}
    return waiting(**{**given, **columns})


def group_of(count: int = 1, status: str = "pending", **columns: Any) -> TaskGroup:
    finished = None if status == "pending" else timezone.now()
    return TaskGroup.objects.create(total_count=count, status=status, finished_at=finished, **columns)


def went_on_without_a_success() -> None:
    waiting(execution(previous=ended(well=False).task_execution))


def wait_for_members_that_never_come() -> None:
    shared = group_of(2)
    TaskGroup.objects.filter(pk=shared.pk).update(updated_at=LONG_AGO())


def write_members_for_long() -> None:
    open_slice = GroupSlice.objects.create(task_group=group_of(2), first_index=0, members=[])
    GroupSlice.objects.filter(pk=open_slice.pk).update(created_at=LONG_AGO())


SOON = lambda: timezone.now() + timedelta(hours=1)  # noqa: E731
LONG_AGO = lambda: timezone.now() - timedelta(hours=1)  # noqa: E731
STEP = {"module_name": "shop.tasks", "func_name": "add", "args": [], "kwargs": {}}
BREAKS: dict[str, Callable[[], object]] = {
    "try completed without a result": lambda: ended().result.delete(),
    "try with a result but not completed": lambda: TaskExecutionResult.objects.create(
        task_execution_try=waiting(), result=1
    ),
    "try completed without an end": lambda: ended(finished_at=None),
    "try completed and still leased or due": lambda: ended(dispatch_at=SOON()),
    "try leased without a token": lambda: running(claim_token=None),
    "try claimed without a lease": lambda: running(lease_until=None),
    "try leased and due at once": lambda: running(dispatch_at=SOON()),
    "lease long expired": lambda: running(lease_until=LONG_AGO()),
    "publish long overdue": lambda: waiting(dispatch_at=LONG_AGO()),
    "execution without a try": execution,
    "execution that succeeded more than once": lambda: ended(ended().task_execution, number=2),
    "execution with more than one unfinished try": lambda: waiting(waiting().task_execution, try_number=2),
    "execution whose tries have gaps": lambda: waiting(try_number=2),
    "execution finished with an unfinished try": lambda: waiting(ended().task_execution, try_number=2),
    "execution unfinished without an unfinished try": lambda: ended(execution(), well=False),
    "execution called a success without one": lambda: ended(execution(outcome="success"), well=False),
    "execution with a success but not called one": lambda: ended(execution(outcome="failed")),
    "chain that did not go on after a success": lambda: ended(execution(outcome="success", chain=[STEP])),
    "chain that went on without a success": went_on_without_a_success,
    "group that waits though all its members have ended": lambda: group_of(completed_count=1),
    "group with a negative count": lambda: group_of(failed_count=-1),
    "group that counted more than it has": lambda: group_of(status="success", completed_count=2),
    "group that succeeded with an unfinished member": lambda: waiting(
        execution(task_group=group_of(status="success", completed_count=1))
    ),
    "group that called back without a success": lambda: waiting(
        execution(previous_group=group_of(status="failed", failed_count=1))
    ),
    "group that waits though no member is under way": wait_for_members_that_never_come,
    "group whose members are not written for long": write_members_for_long,
}


@pytest.mark.parametrize("rule", BREAKS)
def test_a_broken_rule_is_found_and_no_other(rule: str) -> None:
    ended(), waiting(), running(), ended(well=False)
    assert audit() == []
    BREAKS[rule]()
    assert [(finding.rule, finding.count) for finding in audit()] == [(rule, 1)]


def test_every_rule_is_broken_once() -> None:
    assert list(BREAKS) == [rule.name for rule in rules(Now())]


def test_a_try_is_named_by_its_execution_which_status_takes() -> None:
    late = running(lease_until=LONG_AGO())
    of = late.task_execution
    [finding] = audit()
    assert str(finding) == f"lease long expired: 1 (e.g. execution {of.pk} {of.uuid}, try {late.pk})"
    late.delete()
    [finding] = audit()
    assert str(finding) == f"execution without a try: 1 (e.g. execution {of.pk} {of.uuid})"


@pytest.mark.parametrize("column", ["completed_count", "failed_count"])
def test_a_negative_count_is_found_in_either_column_and_no_other_rule_is_broken(column: str) -> None:
    group = TaskGroup.create(callback=note, total_count=2, args=["all"])
    TaskGroup.objects.filter(pk=group.pk).update(**{column: 0})
    assert audit() == []
    TaskGroup.objects.filter(pk=group.pk).update(**{column: -1})
    [finding] = audit()
    assert (finding.rule, finding.count, finding.examples) == ("group with a negative count", 1, (group.pk,))


def test_it_looks_at_slices_of_the_keys_and_counts_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i3tasks.store.audit.SLICE", 3)
    broken = [TaskExecution.objects.create(task_name="add", task_path="shop.tasks").pk for _ in range(10)]
    TaskExecution.objects.filter(pk__in=broken[2:6]).delete()
    del broken[2:6]
    [finding] = audit()
    assert (finding.rule, finding.count) == ("execution without a try", 6)
    assert finding.examples == tuple(broken[:5])

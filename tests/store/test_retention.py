"""Retention deletes what is over and old, all of it, and nothing else."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.db.models import ProtectedError
from django.db.models.signals import pre_delete
from django.test import override_settings

from i3tasks.maintenance import clean_old_task_executions, old_task_executions
from i3tasks.models import (
    ScheduleTick,
    TaskExecution,
    TaskExecutionResult,
    TaskExecutionTry,
    TaskGroup,
    TaskKey,
)
from i3tasks.store.retention import Ages, clean
from i3tasks.tasks import autoclean_task
from i3tasks.types import I3TasksSettings
from tests.shop.tasks import add, fail
from tests.store.helpers import plans
from tests.support.history import a_try, ago, execution, finished

pytestmark = pytest.mark.django_db

WEEK = timedelta(days=7)
OLD, YOUNG = {"days": 8}, {"days": 6}


def ids() -> set[int]:
    return set(TaskExecution.objects.values_list("pk", flat=True))


def group(status: str, **age: float) -> TaskGroup:
    row = TaskGroup.objects.create(total_count=2, status=status)
    TaskGroup.objects.filter(pk=row.pk).update(created_at=ago(**age))
    return row


def test_finished_and_old_goes_with_its_tries_and_results() -> None:
    for outcome in TaskExecution.Outcome.values:
        finished(outcome, ago(**OLD))
    young = finished("success", ago(**YOUNG))

    assert clean_old_task_executions(WEEK) == 3

    assert ids() == {young.pk}
    assert TaskExecutionTry.objects.count() == TaskExecutionResult.objects.count() == 1


def test_tasks_that_really_ran_go() -> None:
    add.sync_run(1, 2)
    with pytest.raises(ValueError, match="no"):
        fail.sync_run()

    assert clean_old_task_executions(WEEK) == 0
    TaskExecution.objects.update(created_at=ago(**OLD))
    assert clean_old_task_executions(WEEK) == 2
    assert not TaskExecutionTry.objects.exists()


@pytest.mark.parametrize("columns", [{}, {"dispatch_at": True}, {"run_after": True}, {"lease_until": True}])
@pytest.mark.parametrize("state", ["pending", "running"])
def test_unfinished_stays(state: str, columns: dict[str, Any]) -> None:
    a_try(state, ago(days=400), **{name: ago(days=-400) for name in columns})

    assert clean_old_task_executions(WEEK) == 0


def test_a_retry_that_waits_keeps_its_execution() -> None:
    row = execution(ago(**OLD))
    a_try("failed", ago(**OLD), of=row)
    a_try("pending", ago(**OLD), of=row, try_number=2, run_after=ago(days=-1))

    assert clean_old_task_executions(WEEK) == 0


@pytest.mark.parametrize(
    ("states", "goes"),
    [
        (["success"], True),
        (["old failed"], True),
        (["old failed", "old failed"], True),
        (["old failed", "success"], True),
        (["old failed", "pending"], False),
        (["running"], False),
        (["old failed", "running"], False),
        ([], False),
    ],
)
def test_rows_of_django_i3tasks_end_with_their_latest_try(states: list[str], goes: bool) -> None:
    row = execution(ago(**OLD))
    for number, state in enumerate(states, 1):
        a_try(state, ago(**OLD), of=row, try_number=number, claim_token=None)

    assert clean_old_task_executions(WEEK) == goes
    assert TaskExecution.objects.exists() is not goes


@pytest.mark.parametrize(("status", "goes"), [("pending", False), ("success", True), ("failed", True)])
def test_members_stay_while_their_group_is_open(status: str, goes: bool) -> None:
    row = group(status, **OLD)
    for _ in range(2):
        finished("success", ago(**OLD), task_group=row)

    assert clean_old_task_executions(WEEK) == (2 if goes else 0)
    assert TaskGroup.objects.exists() is not goes, "a group goes once it is empty"


def test_groups_stay_while_they_are_young_or_have_members() -> None:
    young = group("success", **YOUNG)
    full = group("success", **OLD)
    finished("success", ago(**YOUNG), task_group=full)
    open_one = group("pending", **OLD)
    group("success", **OLD)

    clean_old_task_executions(WEEK)

    assert set(TaskGroup.objects.values_list("pk", flat=True)) == {young.pk, full.pk, open_one.pk}


def test_a_key_that_still_holds_keeps_its_execution() -> None:
    held, free, expired = (finished("success", ago(**OLD)) for _ in range(3))
    for row, expires_at in ((held, ago(days=-1)), (free, None), (expired, ago(days=1))):
        TaskKey.objects.create(key=str(row.pk), token=row.uuid, task_execution=row, expires_at=expires_at)

    assert clean_old_task_executions(WEEK) == 2
    assert ids() == {held.pk}
    assert TaskKey.objects.get().task_execution_id == held.pk


def test_ticks_go_when_they_are_old_and_their_execution_is_gone() -> None:
    kept = execution(ago(**OLD))
    for slot, row in ((8, None), (9, finished("success", ago(**OLD))), (10, kept), (6, None)):
        ScheduleTick.objects.create(schedule_key="s", slot=ago(days=slot), execution=row)

    cleaned = clean(Ages(failed=WEEK, other=WEEK))

    assert (cleaned.executions, cleaned.ticks) == (1, 2)
    assert [tick.execution_id for tick in ScheduleTick.objects.order_by("slot")] == [kept.pk, None]
    assert clean(Ages(failed=timedelta(), other=timedelta())).ticks == 1


def test_the_next_step_of_a_chain_outlives_the_one_before() -> None:
    first = finished("success", ago(**OLD))
    second = execution(ago(**YOUNG), previous=first)

    assert clean_old_task_executions(WEEK) == 1
    second.refresh_from_db()
    assert second.previous_id is None


@pytest.mark.parametrize(
    ("settings", "older_than", "stays"),
    [
        ({}, None, {"success 8", "success 40", "failed 8", "failed 40"}),
        ({"autoclean_older_than": timedelta(days=7)}, None, set()),
        ({"autoclean_older_than": timedelta(days=30)}, None, {"success 8", "failed 8"}),
        ({"autoclean_older_than": timedelta(days=30)}, timedelta(days=7), set()),
        (
            {"autoclean_older_than": timedelta(days=7), "autoclean_failed_older_than": timedelta(days=30)},
            None,
            {"failed 8"},
        ),
        (
            {"autoclean_older_than": timedelta(days=90), "autoclean_failed_older_than": timedelta(days=30)},
            timedelta(days=7),
            {"failed 8"},
        ),
        ({"autoclean_failed_older_than": timedelta(days=30)}, None, {"success 8", "success 40", "failed 8"}),
        ({"autoclean_failed_older_than": timedelta(days=7)}, timedelta(days=30), {"success 8"}),
    ],
)
@pytest.mark.parametrize("by_us", [True, False])
def test_failures_have_an_age_of_their_own(
    settings: Any, older_than: timedelta | None, stays: set[str], by_us: bool
) -> None:
    names = {}
    for outcome in ("success", "failed"):
        for days in (8, 40):
            state = outcome if by_us or outcome == "success" else "old failed"
            row = finished(outcome if by_us else None, ago(days=days), try_state=state)
            names[row.pk] = f"{outcome} {days}"

    with override_settings(I3TASKS=I3TasksSettings(**settings)):
        would_go = old_task_executions(older_than)
        counted = 0 if would_go is None else would_go.count()
        deleted = clean_old_task_executions(older_than)

    assert {names[pk] for pk in ids()} == stays
    assert deleted == counted == 4 - len(stays)


def test_without_an_age_nothing_is_old() -> None:
    finished("success", ago(days=4000))

    assert old_task_executions() is None
    assert clean_old_task_executions() == 0


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 100_000])
def test_batches_miss_none_and_stop_at_what_stays(batch_size: int | None) -> None:
    at = ago(**OLD)
    for _ in range(3):
        finished("success", at)
        a_try("pending", at)  # of the same instant, and in between
    for number in range(3):
        finished("success", ago(days=9 + number))
    done: list[int] = []

    cleaned = clean(Ages(failed=WEEK, other=WEEK), batch_size, progress=done.append)

    assert cleaned.executions == 6
    assert TaskExecution.objects.count() == 3
    size = batch_size or 1000
    assert done == [*range(size, 6, size), 6] if size < 6 else [6]


@pytest.mark.django_db(transaction=True)
def test_each_batch_is_a_transaction() -> None:
    for _ in range(4):
        finished("success", ago(**OLD))
    left: list[int] = []

    def look_from_outside(done: int) -> None:
        other = connections.create_connection("default")
        try:
            with other.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM i3tasks_taskexecution")
                left.append(cursor.fetchone()[0])
        finally:
            other.close()

    clean(Ages(failed=WEEK, other=WEEK), 2, progress=look_from_outside)

    assert left == [2, 0]


def test_what_a_row_of_the_project_protects_stays() -> None:
    rows = [finished("success", ago(**OLD)) for _ in range(5)]

    def protect(sender: Any, instance: TaskExecution, **_: Any) -> None:
        if instance.pk in (rows[2].pk, rows[4].pk):
            raise ProtectedError("An order refers to it.", {instance})

    pre_delete.connect(protect, sender=TaskExecution)
    try:
        assert clean_old_task_executions(WEEK, 2) == 3
    finally:
        pre_delete.disconnect(protect, sender=TaskExecution)
    assert ids() == {rows[2].pk, rows[4].pk}


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_it_waits_for_nobodys_lock() -> None:
    held = finished("success", ago(**OLD))
    finished("success", ago(**OLD))
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT 1 FROM i3tasks_taskexecution WHERE id = %s FOR KEY SHARE", [held.pk])
            with connection.cursor() as ours:
                ours.execute("SET lock_timeout = '1s'")
            assert clean_old_task_executions(WEEK) == 1
            assert ids() == {held.pk}
            cursor.execute("COMMIT")
        assert clean_old_task_executions(WEEK) == 1
    finally:
        other.close()
        connection.close()


@pytest.mark.postgres
def test_it_goes_by_the_index() -> None:
    first = plans(lambda: clean_old_task_executions(timedelta(days=60)))[0]
    assert "i3tasks_te_created_idx" in first, first


def test_the_task_says_how_many() -> None:
    for days in (8, 40):
        finished("success", ago(days=days))

    assert autoclean_task.sync_run(days=30).result.result == {"deleted": 1}
    with override_settings(I3TASKS=I3TasksSettings(autoclean_older_than=WEEK)):
        assert autoclean_task.sync_run(batch_size=5).result.result == {"deleted": 1}
    assert autoclean_task.sync_run().result.result == {"deleted": 0}

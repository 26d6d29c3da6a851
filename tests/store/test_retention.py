"""Retention deletes what is over and old, all of it, and nothing else."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection, connections
from django.db.models import ProtectedError
from django.db.models.signals import pre_delete
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from i3tasks import chain
from i3tasks import group as make_group
from i3tasks.core.outcome import Success
from i3tasks.maintenance import clean_old_task_executions, old_task_executions
from i3tasks.models import (
    ExecutionOutcome,
    ScheduleTick,
    TaskExecution,
    TaskExecutionResult,
    TaskExecutionTry,
    TaskGroup,
    TaskKey,
)
from i3tasks.store import retention
from i3tasks.store.ages import Ages
from i3tasks.store.cancel import retry_failed
from i3tasks.store.retention import PAGE, clean
from i3tasks.store.settle import settle
from i3tasks.store.workflow_links import behind_unfinished
from i3tasks.tasks import autoclean_task
from i3tasks.types import I3TasksSettings
from tests.shop.flows import note
from tests.shop.tasks import add, fail
from tests.store.helpers import in_threads, lease, open_transaction, plans, says
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
    for outcome in ExecutionOutcome.values:
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


@pytest.mark.parametrize("columns", [{"dispatch_at": True}, {"run_after": True}, {"lease_until": True}])
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

    cleaned = clean(Ages(failed=WEEK, other=WEEK), now=timezone.now())

    assert (cleaned.executions, cleaned.ticks) == (1, 2)
    assert [tick.execution_id for tick in ScheduleTick.objects.order_by("slot")] == [kept.pk, None]
    assert clean(Ages(failed=timedelta(), other=timedelta()), now=timezone.now()).ticks == 1


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

    cleaned = clean(Ages(failed=WEEK, other=WEEK), batch_size, now=timezone.now(), progress=done.append)

    assert cleaned.executions == 6
    assert TaskExecution.objects.count() == 3
    size = batch_size or 1000
    assert done[-1] == 6
    assert all(0 < after - before <= size for before, after in zip([0, *done], done, strict=False))


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

    clean(Ages(failed=WEEK, other=WEEK), 2, now=timezone.now(), progress=look_from_outside)

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
def test_it_waits_for_no_lock() -> None:
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
    for other_table in ("SubPlan", "Join"):  # a page is read without a look at its rows' tries
        assert other_table not in first, first


def test_what_nothing_followed_is_deleted_without_a_look_at_unfinished_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backlog of a million tries would be read for each batch."""
    looks: list[Any] = []
    monkeypatch.setattr(retention, "behind_unfinished", lambda now: looks.append(now) or behind_unfinished(now))
    for _ in range(3):
        finished("success", ago(**OLD))
    assert clean_old_task_executions(WEEK) == 3
    assert not looks

    first = finished("success", ago(**OLD))
    finished("success", ago(**YOUNG), previous=first)
    assert clean_old_task_executions(WEEK) == 1
    assert looks


def test_the_task_says_how_many() -> None:
    for days in (8, 40):
        finished("success", ago(days=days))

    assert autoclean_task.sync_run(days=30).result.result == {"deleted": 1}
    with override_settings(I3TASKS=I3TasksSettings(autoclean_older_than=WEEK)):
        assert autoclean_task.sync_run(batch_size=5).result.result == {"deleted": 1}
    assert autoclean_task.sync_run().result.result == {"deleted": 0}


# ------------------------------------------------------------------------------------------------ what will never end


@pytest.mark.parametrize(
    ("days", "age", "goes"), [(40, 7, True), (20, 7, False), (40, 60, False), (70, 60, True), (8, 7, False)]
)
@pytest.mark.parametrize("state", ["pending", "running", None])
def test_the_dead_go_at_their_age_but_not_before_31_days(state: str | None, days: int, age: int, goes: bool) -> None:
    execution(ago(days=days)) if state is None else a_try(state, ago(days=days), claim_token=None)
    old = old_task_executions(timedelta(days=age))
    assert old is not None
    assert old.count() == clean_old_task_executions(timedelta(days=age)) == goes


def test_a_try_that_is_younger_than_its_execution_keeps_it() -> None:
    row = execution(ago(days=90))
    a_try("old failed", ago(days=90), of=row)
    a_try("pending", ago(days=20), of=row, try_number=2)
    assert clean_old_task_executions(WEEK) == 0


def test_groups_that_wait_for_ever_go_with_their_members() -> None:
    dead = group("pending", days=40)
    finished("success", ago(days=40), task_group=dead)
    execution(ago(days=40), task_group=dead)
    with_deadline = group("pending", days=40)
    under_way = group("pending", days=40)
    TaskGroup.objects.update(updated_at=ago(days=40))
    TaskGroup.objects.filter(pk=with_deadline.pk).update(deadline=ago(days=-1))
    first = finished("success", ago(days=40), part_of=under_way)
    a_try("pending", ago(days=1), of=execution(ago(days=40), previous=first), dispatch_at=ago(days=-1))

    cleaned = clean(Ages(failed=WEEK, other=WEEK), now=timezone.now())

    assert (cleaned.executions, cleaned.groups) == (2, 1)
    assert set(TaskGroup.objects.values_list("pk", flat=True)) == {with_deadline.pk, under_way.pk}


# ------------------------------------------------------------------------------------------------ workflows under way


def test_what_an_unfinished_step_came_from_stays_over_any_number_of_links() -> None:
    """chain(a, group(chain(b, c), d), e, f), of which f waits."""
    a = finished("success", ago(**OLD))
    inner = group("success", **OLD)
    TaskGroup.objects.filter(pk=inner.pk).update(previous=a)
    b = finished("success", ago(**OLD), part_of=inner)
    c = finished("success", ago(**OLD), previous=b, task_group=inner)
    e = finished("success", ago(**OLD), previous_group=inner)
    f = a_try("pending", ago(**YOUNG), of=execution(ago(**YOUNG), previous=e), dispatch_at=ago(days=-9)).task_execution
    finished("success", ago(**OLD))
    old = old_task_executions(WEEK)
    assert old is not None
    counted = old.count()

    cleaned = clean(Ages(failed=WEEK, other=WEEK), now=timezone.now())

    assert counted == cleaned.executions == 3, "the stranger; and b and c, which nothing unfinished came from"
    assert (ids(), TaskGroup.objects.count()) == ({a.pk, e.pk, f.pk}, 1)
    assert not TaskExecution.objects.filter(pk__in=[b.pk, c.pk]).exists()
    TaskExecutionTry.objects.filter(task_execution=f).update(is_completed=True, is_success=True)
    TaskExecution.objects.filter(pk=f.pk).update(outcome="success")
    assert clean_old_task_executions(WEEK) == 2


def test_what_a_waiting_group_came_from_stays() -> None:
    a = finished("success", ago(**OLD))
    TaskGroup.objects.create(total_count=1, previous=a)
    assert clean_old_task_executions(WEEK) == 0


def test_a_chain_and_a_group_can_be_cancelled_after_a_cleaning(sent: Any) -> None:
    handle = chain(note.s("a"), note.s("b"), note.s("c")).delay()
    started = make_group(chain(note.s("d"), note.s("e"), note.s("f")), note.s("g")).delay()
    for name in "abde":
        waiting = TaskExecutionTry.objects.select_related("task_execution").get(
            is_completed=False, task_execution__task_args=[name]
        )
        settle([says(lease(waiting)[0], Success(None))])
    TaskExecution.objects.filter(outcome="success").update(created_at=ago(**OLD))

    clean_old_task_executions(WEEK)
    handle.cancel()
    started.cancel()

    assert not TaskExecution.objects.filter(outcome__isnull=True).exists()
    ended = TaskExecution.objects.filter(outcome="cancelled").values_list("task_args", flat=True)
    assert sorted(ended) == [["c"], ["f"], ["g"]]


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_what_is_retried_after_it_was_found_old_stays() -> None:
    rows = [finished("failed", ago(**OLD)) for _ in range(3)]
    raced: list[int] = []

    def retry_meanwhile(executing: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "FOR UPDATE" in sql and not raced:
            raced.append(rows[1].pk)
            in_threads([partial(retry_failed, [rows[1].pk], now=timezone.now())])
        return executing(sql, params, many, context)

    with connection.execute_wrapper(retry_meanwhile):
        assert clean_old_task_executions(WEEK) == 2
    assert ids() == {rows[1].pk}
    assert TaskExecutionTry.objects.filter(is_completed=False).count() == 1


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "held",
    [
        "taskexecutiontry WHERE task_execution_id = {old}",
        "taskexecutionresult WHERE task_execution_try_id IN "
        "(SELECT id FROM i3tasks_taskexecutiontry WHERE task_execution_id = {old})",
        "taskexecution WHERE previous_id = {old}",
        "taskgroup WHERE previous_id = {old}",
        "taskkey WHERE task_execution_id = {old}",
        "scheduletick WHERE execution_id = {old}",
    ],
    ids=["try", "result", "next step", "next group", "key", "tick"],
)
@pytest.mark.parametrize("strength", ["UPDATE", "SHARE"])
def test_no_cleaning_waits_for_what_goes_with_an_execution(held: str, strength: str) -> None:
    """Nor for what only loses its link to it."""
    old, another = (finished("success", ago(**OLD)) for _ in range(2))
    finished("success", ago(**YOUNG), previous=old)
    TaskGroup.objects.create(total_count=0, status=TaskGroup.STATUS_SUCCESS, previous=old)
    TaskKey.objects.create(key="key", token=old.uuid, task_execution=old)
    ScheduleTick.objects.create(schedule_key="s", slot=ago(**YOUNG), execution=old)
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '1s'")
        with open_transaction(f"SELECT 1 FROM i3tasks_{held.format(old=old.pk)} FOR {strength}"):
            assert clean_old_task_executions(WEEK) == 1
        cursor.execute("RESET lock_timeout")
    assert old.pk in ids()
    assert another.pk not in ids()
    assert clean_old_task_executions(WEEK) == 1


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_cleaning_and_retrying_at_the_same_time_lose_nothing() -> None:
    rows = [finished("failed", ago(**OLD)) for _ in range(300)]
    retried: list[int] = []

    def retry() -> None:
        for row in rows[::-3]:
            retried.extend(item.task_execution_id for item in retry_failed([row.pk], now=timezone.now()).tries)

    in_threads([retry, partial(clean_old_task_executions, WEEK, 20)])
    assert ids() >= set(retried)
    assert TaskExecutionTry.objects.filter(is_completed=False).count() == len(retried)


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_rows_of_one_instant_are_read_in_pages_of_many_batches(batch_size: int) -> None:
    """Each page sorts all rows of the instant, so there must be few pages, however many batches."""
    for _ in range(30):
        finished("success", ago(**OLD))
    TaskExecution.objects.update(created_at=ago(**OLD))
    with CaptureQueriesContext(connection) as captured:
        assert clean_old_task_executions(WEEK, batch_size) == 30
    assert sum(f"LIMIT {PAGE}" in query["sql"] for query in captured.captured_queries) <= 4  # executions, groups, ticks


def test_rows_of_one_instant_take_as_little_work_as_any_others() -> None:
    """Forty batches, by the work that the database counts, which is the same however busy the machine is.

    Of fewer rows, PostgreSQL reads them all, as is right.
    """
    batch = 500 if connection.vendor == "postgresql" else 125

    def clean_all() -> None:
        clean(Ages(None, WEEK), batch, now=ago(days=-30))

    many_executions(8 * batch)
    of_many_instants = work(clean_all) * 5
    many_executions(40 * batch)
    TaskExecution.objects.update(created_at=ago())
    of_one_instant = work(clean_all)
    assert not TaskExecution.objects.exists()
    assert of_one_instant < 2 * of_many_instants


def many_executions(count: int) -> None:
    """That ended well, each created at an instant of its own."""
    row = {"task_path": "a", "task_name": "b", "outcome": ExecutionOutcome.SUCCESS}
    TaskExecution.objects.bulk_create([TaskExecution(**row) for _ in range(count)])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def work(function: Callable[[], Any]) -> int:
    """What the database does for it: rows that PostgreSQL reads; thousands of instructions of SQLite's machine."""
    if connection.vendor == "sqlite":
        thousands: list[None] = []
        connection.connection.set_progress_handler(lambda: thousands.append(None), 1000)
        function()
        connection.connection.set_progress_handler(None, 0)
        return len(thousands)
    before = rows_read()
    function()
    return rows_read() - before


def rows_read() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'i3tasks_taskexecution'"
        )
        [count] = cursor.fetchone()
        return int(count)

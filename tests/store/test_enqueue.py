"""`enqueue.insert`: part of the caller's transaction, and as many statements for a thousand calls as for one."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from i3tasks.core.values import decode, encode
from i3tasks.models import TaskExecution, TaskExecutionTry, TaskGroup
from i3tasks.store.enqueue import NewExecution, Origin, insert
from i3tasks.store.inserting import _insert_by_orm
from i3tasks.store.requests import TryRef
from tests.store.helpers import ADD, columns, enqueue, queries_of

pytestmark = pytest.mark.django_db


def rolled_back(count: int) -> None:
    with suppress(InterruptedError), transaction.atomic():
        enqueue(count)
        raise InterruptedError


def test_it_writes_an_execution_and_a_try_that_is_due_after_the_grace() -> None:
    now = timezone.now()
    [task_try] = insert([ADD], now=now)
    task_try.refresh_from_db()
    execution = task_try.task_execution
    assert (execution.task_path, execution.task_name) == ("tests.shop.tasks", "add")
    assert (execution.task_args, execution.task_kwargs, execution.priority) == ([1, 2], {}, 0)
    assert (execution.chain, execution.task_group, execution.options, execution.outcome) == (None, None, None, None)
    assert execution.uuid.version == 7
    assert task_try.dispatch_at == now + timedelta(seconds=60)
    assert (task_try.try_number, task_try.publish_count) == (1, 0)
    assert (task_try.is_completed, task_try.is_success) == (False, False)
    for column in ("run_after", "started_at", "finished_at", "lease_until", "claim_token", "worker_id", "error_class"):
        assert getattr(task_try, column) is None, column


def test_an_instant_that_has_passed_is_none_so_that_no_other_clock_finds_it_to_come() -> None:
    now = timezone.now()
    tries = insert(
        [NewExecution("m", "f", [], {}, run_after=now - timedelta(seconds=late)) for late in (0, 5)], now=now
    )
    assert [task_try.run_after for task_try in tries] == [None, None]
    assert columns("run_after", "dispatch_at") == [{"run_after": None, "dispatch_at": now + timedelta(seconds=60)}] * 2


def test_a_deferred_call_is_due_when_it_may_run() -> None:
    later = timezone.now() + timedelta(hours=1)
    [task_try] = enqueue(call=NewExecution("m", "f", [], {}, run_after=later))
    assert columns("run_after", "dispatch_at") == [{"run_after": later, "dispatch_at": later}]
    assert TryRef.of(task_try).dispatch_at == later


def test_what_a_call_carries_is_in_its_row() -> None:
    enqueue(call=NewExecution("m", "f", [], {"x": 1}, queue_name="heavy", priority=-5))
    execution = TaskExecution.objects.get()
    assert (execution.queue_name, execution.priority, execution.task_kwargs) == ("heavy", -5, {"x": 1})


@pytest.mark.postgres
def test_one_call_and_two_thousand_take_one_statement_each_on_postgresql() -> None:
    assert queries_of(lambda: enqueue(1)) == 1
    assert queries_of(lambda: enqueue(2000)) == 1
    assert queries_of(lambda: enqueue(2001)) == 2


def test_a_thousand_calls_take_few_statements_anywhere() -> None:
    assert queries_of(lambda: enqueue(1)) <= 2
    assert queries_of(lambda: enqueue(1000)) <= 4
    assert TaskExecutionTry.objects.count() == 1001
    pairs = TaskExecutionTry.objects.values_list("task_execution_id", flat=True)
    assert len(set(pairs)) == 1001


@pytest.mark.postgres
def test_calls_that_are_too_large_for_one_statement_take_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i3tasks.store.postgres.inserting.MOST_CHARACTERS", 10_000)
    calls = [NewExecution("m", "f", [number, "x" * 3000], {}) for number in range(12)]
    tries = []
    assert queries_of(lambda: tries.extend(insert(calls, now=timezone.now()))) > 1
    stored = TaskExecution.objects.in_bulk([task_try.task_execution_id for task_try in tries])
    assert [stored[task_try.task_execution_id].task_args[0] for task_try in tries] == list(range(12))


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_outside_of_transactions_a_statement_needs_none_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beginning and committing one would take two round trips more."""
    assert statements_of(lambda: enqueue(1)) == ["WITH"]
    assert statements_of(lambda: enqueue(5)) == ["WITH"]
    monkeypatch.setattr("i3tasks.store.postgres.inserting.MOST_ROWS", 3)
    assert statements_of(lambda: enqueue(5)) == ["BEGIN", "WITH", "WITH", "COMMIT"]
    assert TaskExecutionTry.objects.count() == 11


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("count", [1, 5])
def test_a_connection_that_the_server_ended_costs_one_call(count: int) -> None:
    enqueue(count)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [pid] = cursor.fetchone()
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    other.close()
    with pytest.raises(OperationalError):
        enqueue(count)
    enqueue(count)
    assert TaskExecutionTry.objects.count() == 2 * count


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_refused_value_keeps_the_connection() -> None:
    enqueue(1)
    before = connection.connection
    with pytest.raises(DatabaseError):
        insert([NewExecution("m", "f", [], {}, task_group_id=2**70)], now=timezone.now())
    enqueue(1)
    assert connection.connection is before


def statements_of(write: Callable[[], object]) -> list[str]:
    """The first word of each."""
    with CaptureQueriesContext(connection) as queries:
        write()
    return [query["sql"].split(maxsplit=1)[0] for query in queries]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rows", [2000, 2])
def test_outside_of_transactions_all_calls_are_written_or_none(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr("i3tasks.store.postgres.inserting.MOST_ROWS", rows)
    refused = NewExecution("m", "f", [], {}, task_group_id=2**70)
    with pytest.raises((DatabaseError, OverflowError)):
        insert([ADD, ADD, ADD, refused], now=timezone.now())
    assert not TaskExecution.objects.exists()
    assert not TaskExecutionTry.objects.exists()
    insert([ADD], now=timezone.now())
    assert TaskExecutionTry.objects.count() == 1


def test_an_error_inside_a_transaction_breaks_it_as_any_other_does() -> None:
    with transaction.atomic():
        with suppress(DatabaseError, OverflowError):
            insert([NewExecution("m", "f", [], {}, task_group_id=2**70)], now=timezone.now())
        with pytest.raises(transaction.TransactionManagementError):
            TaskExecution.objects.exists()


@pytest.mark.parametrize("rows", [2000, 7])
def test_each_row_has_its_own_values_and_the_shared_ones(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Values that are equal and not the same, such as 1 and True, stay apart."""
    monkeypatch.setattr("i3tasks.store.postgres.inserting.MOST_ROWS", rows)
    now = timezone.now()
    values: list[Any] = [1, True, 1.0, 0, False, None, [], {}, "1"]
    calls = [
        NewExecution(
            module_name="m",
            func_name=f"f{number % 2}",
            args=[value],
            kwargs={"x": value} if number % 3 else {},
            queue_name=["heavy", None][number % 2],
            run_after=now + timedelta(hours=number) if number % 4 else None,
            priority=number % 5,
            options={"timeout": number} if number % 2 else {},
        )
        for number, value in enumerate(values * 2)
    ]
    tries = insert(calls, now=now)
    for number, (call, task_try) in enumerate(zip(calls, tries, strict=True)):
        stored = TaskExecutionTry.objects.select_related("task_execution").get(pk=task_try.pk)
        execution = stored.task_execution
        assert repr(execution.task_args) == repr(call.args)
        assert (execution.task_name, execution.task_kwargs) == (call.func_name, call.kwargs)
        for row in (stored, execution):
            assert (row.queue_name, row.priority) == (call.queue_name, call.priority)
        assert (execution.options, stored.run_after) == (call.options or None, call.run_after)
        assert stored.dispatch_at == (call.run_after or now + timedelta(seconds=60))
        assert stored.asked_at == task_try.asked_at == now - timedelta(microseconds=len(calls) - 1 - number)
        assert execution.uuid == task_try.task_execution.uuid
        assert TryRef.of(stored).dispatch_at == task_try.dispatch_at
    uuids = [task_try.task_execution.uuid for task_try in tries]
    assert uuids == sorted(set(uuids))


TRICKY = "{\u2028'\\\"%s"


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_with_server_side_binding_and_prepared_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**connection.settings_dict["OPTIONS"], "server_side_binding": True, "prepare_threshold": 1}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    connection.close()
    try:
        for count in (1, 1, 1, 30, 30, 30, 2001):
            calls = [NewExecution("m", "f", [number, TRICKY], {}) for number in range(count)]
            for number, task_try in enumerate(insert(calls, now=timezone.now())):
                if number in (0, 29, 2000):
                    stored = TaskExecutionTry.objects.select_related("task_execution").get(pk=task_try.pk)
                    assert stored.task_execution.task_args == calls[number].args
                    assert stored.asked_at == task_try.asked_at
    finally:
        connection.close()


def test_answers_are_in_the_order_of_the_calls() -> None:
    tries = insert([NewExecution("m", "f", [number], {}) for number in range(200)], now=timezone.now())
    for number, task_try in enumerate(tries):
        assert TaskExecution.objects.get(tries=task_try.pk).task_args == [number]


@pytest.mark.parametrize("count", [1, 3])
def test_the_instances_are_as_the_orm_would_read_them(count: int) -> None:
    group = TaskGroup.objects.create(total_count=1)
    call = NewExecution(
        "m", "f", [None, "\u2028 {}\"'\\"], {"x": {}}, "heavy", timezone.now() + timedelta(hours=1), -3,
        {"timeout": 1.5}, [{"module_name": "m"}], group.pk, 7, Origin(part_of_id=group.pk),
    )  # fmt: skip
    for task_try in insert([call] * count, now=timezone.now()):
        stored = TaskExecutionTry.objects.select_related("task_execution").get(pk=task_try.pk)
        for row, read in ((task_try, stored), (task_try.task_execution, stored.task_execution)):
            assert {name: value for name, value in vars(row).items() if name != "_state"} == {
                name: value for name, value in vars(read).items() if name != "_state"
            }
            assert (row._state.db, row._state.adding) == (read._state.db, False)
            row.save()
        stored.refresh_from_db()


def test_elsewhere_the_orm_writes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [NewExecution("m", "f", [number], {"x": None}, queue_name="heavy") for number in range(3)]
    now, before = timezone.now(), insert(calls, now=timezone.now())
    monkeypatch.setattr("i3tasks.store.inserting.are_known", lambda: False)
    monkeypatch.setattr("i3tasks.store.inserting._insert_on_sqlite", _insert_by_orm)
    monkeypatch.setattr("i3tasks.store.inserting.NewTries", lambda table, written: written)
    monkeypatch.setattr(connection, "vendor", "sqlite")
    after = insert(calls, now=now)
    for one, other in zip(before, after, strict=True):
        assert columns_of(one) == columns_of(other)
        assert columns_of(one.task_execution) == columns_of(other.task_execution)


def columns_of(row: Any) -> dict[str, Any]:
    own = {"id", "uuid", "task_execution_id", "created_at", "updated_at", "asked_at", "dispatch_at"}
    row.refresh_from_db()
    return {name: value for name, value in vars(row).items() if name not in own and not name.startswith("_")}


def test_rolled_back_it_never_happened() -> None:
    rolled_back(1)
    assert not TaskExecution.objects.exists()


def test_an_inner_rollback_takes_only_its_own_calls() -> None:
    with transaction.atomic():
        [outer] = enqueue()
        rolled_back(3)
        [after] = enqueue()
    assert [item["pk"] for item in columns("pk")] == [outer.pk, after.pk]


VALUES: list[Any] = [
    None, True, 0, -(10**3000), 10**30, 0.1, -0.0, 5e-324, 1.7976931348623157e308, 1e16, 123456789.0,
    "", "é\U0001f600\u2028\\u0000", [], {}, {"": {"a": [[]]}},
    datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), timedelta(-1, 2, 3), Decimal("1.10"), Decimal("NaN"), UUID(int=7),
    {"__i3tasks__": "dict", "value": 1},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:40])
def test_arguments_survive_the_database(value: Any) -> None:
    enqueue(call=NewExecution("m", "f", [encode(value, "x")], {}))
    back = decode(TaskExecution.objects.get().task_args[0])
    assert type(back) is type(value)
    assert str(back) == str(value) or back == value  # jsonb sorts keys


def test_no_transaction_of_its_own_outlives_it() -> None:
    enqueue()
    assert connection.in_atomic_block, "the test's own"
    assert not connection.needs_rollback


@pytest.mark.django_db(transaction=True)
def test_outside_of_a_transaction_it_commits() -> None:
    enqueue(2)
    connection.close()
    assert TaskExecutionTry.objects.count() == TaskExecution.objects.count() == 2

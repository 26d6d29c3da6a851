"""`enqueue.insert`: part of the caller's transaction, and as many statements for a thousand calls as for one."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.utils import timezone

from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store.enqueue import NewExecution, insert, ref
from i3tasks.values import decode, encode
from tests.store.helpers import ADD, columns, enqueue, queries_of

pytestmark = pytest.mark.django_db


def rolled_back(count: int) -> None:
    with suppress(InterruptedError), transaction.atomic():
        enqueue(count)
        raise InterruptedError


def test_it_writes_an_execution_and_a_try_that_is_due_after_the_grace() -> None:
    now = timezone.now()
    [task_try] = insert([ADD], now=now, grace_seconds=60)
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


def test_a_deferred_call_is_due_when_it_may_run() -> None:
    later = timezone.now() + timedelta(hours=1)
    [task_try] = enqueue(call=NewExecution("m", "f", [], {}, run_after=later))
    assert columns("run_after", "dispatch_at") == [{"run_after": later, "dispatch_at": later}]
    assert ref(task_try).dispatch_at == later


def test_what_a_call_carries_is_in_its_row() -> None:
    enqueue(call=NewExecution("m", "f", [], {"x": 1}, queue_name="heavy", priority=-5))
    execution = TaskExecution.objects.get()
    assert (execution.queue_name, execution.priority, execution.task_kwargs) == ("heavy", -5, {"x": 1})


@pytest.mark.postgres
def test_a_thousand_calls_take_as_many_statements_as_one_on_postgresql() -> None:
    assert queries_of(lambda: enqueue(1)) == queries_of(lambda: enqueue(1000)) == 2


def test_a_thousand_calls_take_few_statements_anywhere() -> None:
    """SQLite takes about a thousand values a statement."""
    assert queries_of(lambda: enqueue(1)) == 2
    assert queries_of(lambda: enqueue(1000)) < 80
    assert TaskExecutionTry.objects.count() == 1001
    pairs = TaskExecutionTry.objects.values_list("task_execution_id", flat=True)
    assert len(set(pairs)) == 1001


def test_answers_are_in_the_order_of_the_calls() -> None:
    tries = insert([NewExecution("m", "f", [number], {}) for number in range(200)], now=timezone.now(), grace_seconds=1)
    for number, task_try in enumerate(tries):
        assert TaskExecution.objects.get(tries=task_try.pk).task_args == [number]


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

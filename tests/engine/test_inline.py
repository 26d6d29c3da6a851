"""`sync_run`, `arun`, direct calls and `force_sync`: the executor in the caller's own thread."""

import asyncio
from typing import Any

import anyio
import pytest
from django.db import transaction
from django.test import override_settings

from i3tasks import TaskDecorator
from i3tasks.exceptions import I3TasksError
from i3tasks.models import ExecutionOutcome, TaskExecution, TaskExecutionTry
from i3tasks.types import I3TasksSettings
from tests.shop.models import Order
from tests.shop.tasks import aadd, add, afail, aplace_order, describe, fail, nap, place_order


@pytest.mark.django_db
def test_sync_run_records_and_returns_the_try() -> None:
    task_try = add.sync_run(1, 2)
    assert (task_try.is_completed, task_try.is_success, task_try.result.result) == (True, True, 3)
    assert task_try.started_at <= task_try.finished_at
    assert (task_try.lease_until, task_try.dispatch_at) == (None, None)
    assert task_try.task_execution.outcome == ExecutionOutcome.SUCCESS


@pytest.mark.django_db
def test_sync_run_of_a_coroutine_uses_the_callers_transaction() -> None:
    with transaction.atomic():
        task_try = aplace_order.sync_run("one", "10")
        assert Order.objects.get().pk == task_try.result.result
        transaction.set_rollback(True)
    assert not Order.objects.exists()
    assert not TaskExecution.objects.exists()


@pytest.mark.django_db
def test_sync_run_raises_the_bodys_error_and_keeps_it() -> None:
    with pytest.raises(ValueError, match="broken"):
        fail.sync_run("broken")
    task_try = TaskExecutionTry.objects.get()
    assert (task_try.is_completed, task_try.is_success, task_try.error_class) == (True, False, "ValueError")
    assert task_try.result.result == "broken"
    assert "raise ValueError(message)" in task_try.error_traceback
    assert task_try.task_execution.outcome == ExecutionOutcome.FAILED


async def limited_by_asyncio() -> None:
    await asyncio.wait_for(nap.arun(60), 0.5)


async def limited_by_anyio() -> None:
    with anyio.fail_after(0.5):  # which cancels each further wait, too
        await nap.arun(60)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("limited", [limited_by_asyncio, limited_by_anyio])
async def test_a_caller_that_is_cancelled_leaves_no_try_that_seems_to_run(limited: Any) -> None:
    with pytest.raises(TimeoutError):
        await limited()
    task_try = await TaskExecutionTry.objects.select_related("task_execution").aget()
    assert (task_try.is_completed, task_try.is_success, task_try.lease_until) == (True, False, None)
    assert task_try.error_class == "asyncio.exceptions.CancelledError"
    assert task_try.task_execution.outcome == ExecutionOutcome.FAILED


@pytest.mark.django_db(transaction=True)
async def test_arun_of_both_kinds() -> None:
    for task in (add, aadd):
        task_try = await task.arun(2, 3)
        assert task_try.result.result == 5
    with pytest.raises(ValueError, match="no"):
        await afail.arun()


@pytest.mark.django_db(transaction=True)
async def test_sync_run_in_a_coroutine_says_what_to_do() -> None:
    with pytest.raises(I3TasksError, match="arun"):
        add.sync_run(1, 2)


@pytest.mark.django_db
def test_bind_gives_the_metadata() -> None:
    assert describe.sync_run(7).result.result == {"value": 7, "try_number": 1, "queue": "default"}


@TaskDecorator
def documented(value: int) -> int:
    return value + 1


@pytest.mark.django_db
def test_calling_a_documented_task_runs_and_records_it() -> None:
    assert documented(1).result.result == 2
    assert add(1, 2) == 3, "a task made with @task is a plain call"
    assert TaskExecution.objects.count() == 1


@pytest.mark.django_db
@override_settings(I3TASKS=I3TasksSettings(force_sync=True, default_max_retries=2))
def test_force_sync_runs_at_once_with_all_retries() -> None:
    place_order.delay("now", "3")
    assert Order.objects.get().name == "now"
    handle = fail.using(max_retries=2).delay("again")
    tries = TaskExecutionTry.objects.filter(task_execution=handle.task_execution_id)
    assert [item.try_number for item in tries.order_by("try_number")] == [1, 2, 3]
    assert all(item.is_completed for item in tries)
    assert "MaxRetriesExceededError" in tries.get(try_number=3).error_traceback
    assert TaskExecution.objects.get(pk=handle.task_execution_id).outcome == "failed"

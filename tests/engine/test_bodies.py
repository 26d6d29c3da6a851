"""Bodies that end in the odd ways that Python allows: each is one recorded failure, and the next one is well."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from i3tasks import task
from i3tasks.engine.assembly import make_engine
from i3tasks.engine.executor import Executor
from i3tasks.engine.report import Verdict
from i3tasks.models import TaskExecutionTry
from i3tasks.store.requests import Renewed
from tests.shop.models import Order
from tests.support.rigs import delivery_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

RAN: list[str] = []


async def really() -> None:
    RAN.append("really")


def each() -> Any:
    RAN.append("each")
    yield 1


@task
def forget_to_await() -> Any:
    return really()


@task
async def await_half() -> Any:
    return really()


@task
def forget_to_iterate() -> Any:
    return each()


@task(max_retries=0)
async def cancel_itself() -> str:
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    return "done, and cancelled at the next await, which there is none of"


@task(max_retries=0)
async def last_a_moment() -> None:
    await asyncio.sleep(0)


@task(max_retries=0)
def leave_a_transaction_open() -> None:
    transaction.atomic().__enter__()
    Order.objects.create(name="lost", total=1)


@task(max_retries=0)
async def leave_a_lane_in_a_transaction() -> None:
    await sync_to_async(leave_a_transaction_open.spec.function)()


@task(max_retries=0)
def order(name: str) -> None:
    Order.objects.create(name=name, total=1)


@task(max_retries=0)
async def aorder(name: str) -> None:
    await Order.objects.acreate(name=name, total=1)


async def executed(*calls: Any) -> list[Any]:
    """The tries of these calls after an engine with one thread and one lane has carried them out, one by one."""
    engine = make_engine(concurrency=1, threads=1)
    tries = [(await called.adelay(*args)).task_execution_try for called, *args in calls]
    try:
        for task_try in tries:
            assert (await engine.executor.execute(delivery_of(task_try))).verdict is Verdict.ACK
    finally:
        engine.pool.close()
    rows = TaskExecutionTry.objects.select_related("task_execution", "result")
    return [await rows.aget(pk=task_try.pk) for task_try in tries]


@pytest.mark.parametrize("called", [forget_to_await, await_half, forget_to_iterate])
async def test_a_body_that_returns_what_was_to_be_run_has_failed_for_good(called: Any) -> None:
    RAN.clear()
    [task_try] = await executed((called,))
    assert (task_try.error_class, task_try.task_execution.outcome) == ("i3tasks.exceptions.PermanentError", "failed")
    assert "has not run" in task_try.result.result
    assert RAN == []


async def test_a_body_that_cancels_itself_as_it_returns_has_failed() -> None:
    [task_try] = await executed((cancel_itself,))
    assert (task_try.is_completed, task_try.error_class) == (True, "asyncio.exceptions.CancelledError")


async def test_a_thread_that_was_left_in_a_transaction_is_out_of_it_for_the_next_body() -> None:
    open_one, next_one = await executed((leave_a_transaction_open,), (order, "kept"))
    assert open_one.error_class == "django.db.transaction.TransactionManagementError", "what it wrote is not there"
    assert next_one.is_success
    assert [row.name async for row in Order.objects.all()] == ["kept"]


async def test_a_lane_that_was_left_in_a_transaction_is_out_of_it_for_the_next_body(settings: Any) -> None:
    calls = [(leave_a_lane_in_a_transaction,), (aorder, "kept")]
    assert [task_try.is_success for task_try in await executed(*calls)] == [False, True]
    assert [row.name async for row in Order.objects.all()] == ["kept"]


async def test_a_lease_that_ended_with_its_settlement_is_not_called_lost(
    events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heartbeat may hear of the settlement before the try does: both are answered in one transaction."""
    engine = make_engine(concurrency=1, threads=1)
    settle = Executor._settle

    async def settle_and_hear_of_it(self: Executor, claimed: Any, outcome: Any) -> Any:
        settled = await settle(self, claimed, outcome)
        engine.running._stop(Renewed(lost=frozenset({claimed.try_id}), cancelled=frozenset()))
        return settled

    monkeypatch.setattr(Executor, "_settle", settle_and_hear_of_it)
    task_try = (await last_a_moment.adelay()).task_execution_try
    assert (await engine.executor.execute(delivery_of(task_try))).verdict is Verdict.ACK
    engine.pool.close()
    assert "lease_lost" not in events

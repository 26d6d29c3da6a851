"""Many `adelay()` of one loop: written together outside of transactions, and in the transaction inside of one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from django.db import IntegrityError, OperationalError, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, TestCase
from django.urls import path

from i3tasks import task
from i3tasks.calls import writing
from i3tasks.exceptions import ArgumentError
from i3tasks.models import TaskExecution, TaskGroup
from i3tasks.store import enqueue as store
from tests.shop.tasks import add
from tests.support.rigs import NotingPublisher, until

pytestmark = pytest.mark.usefixtures("sent")
committed = pytest.mark.django_db(transaction=True)

tenant: ContextVar[str] = ContextVar("tenant", default="none")


@task
def name_tenant(value: int) -> str:
    return f"{value} of {tenant.get()}"


@task(unique=True)
def only_one(value: int) -> int:
    return value


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The first arguments of the calls of each attempt to write some."""
    attempts: list[list[Any]] = []

    def enqueue(calls: Any, **options: Any) -> Any:
        attempts.append([call.args[0] for call in calls])
        return store.enqueue(calls, **options)

    monkeypatch.setattr(writing, "enqueue", enqueue)
    return attempts


async def all_of(*calls: Any) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


async def arguments() -> list[Any]:
    return [row.task_args async for row in TaskExecution.objects.order_by("task_args")]


# ----------------------------------------------------------------------------------------------------- together


@committed
async def test_calls_that_wait_together_are_written_together(written: list[list[Any]], sent: NotingPublisher) -> None:
    handles = await asyncio.gather(*(add.adelay(number, 1) for number in range(100)))
    assert written == [list(range(100))]
    assert [handle.task_execution.task_args for handle in handles] == [[number, 1] for number in range(100)]  # type: ignore[union-attr]
    assert sent.try_ids == [handle.task_execution_try.pk for handle in handles]  # type: ignore[union-attr]
    assert await TaskExecution.objects.acount() == 100
    assert not any(writing._batches.values()), "nothing is kept of them"


@committed
async def test_a_batch_is_bounded(written: list[list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAXIMUM_BATCH", 4)
    await asyncio.gather(*(add.adelay(number, 1) for number in range(10)))
    assert written == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@committed
async def test_the_next_batch_is_begun_before_the_coroutines_of_one_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAXIMUM_BATCH", 2)

    async def call(number: int) -> list[Any]:
        await add.adelay(number, 1)
        under_way = [
            item for places in writing._batches.values() for batches in places.values() for item in batches._batch
        ]
        return [item.call.args[0] for item in under_way]

    assert await asyncio.gather(*map(call, range(4))) == [[2, 3], [2, 3], [], []]


@committed
async def test_calls_of_different_tasks_and_options_keep_their_own() -> None:
    first, second = await asyncio.gather(add.using(priority=3).adelay(1, 2), name_tenant.adelay(5))
    assert first.task_execution is not None
    assert second.task_execution is not None
    assert (first.task_execution.task_name, first.task_execution.priority) == ("add", 3)
    assert (second.task_execution.task_name, second.task_execution.priority) == ("name_tenant", 0)


@committed
async def test_each_context_of_threads_writes_its_own(written: list[list[Any]]) -> None:
    async def request(number: int) -> None:
        async with ThreadSensitiveContext():
            await asyncio.gather(add.adelay(number, 1), add.adelay(number, 2))
            await sync_to_async(connections.close_all)()

    await asyncio.gather(request(1), request(2))
    assert sorted(written) == [[1, 1], [2, 2]]


@committed
async def test_arguments_are_those_of_the_call() -> None:
    value = {"a": 1}
    waiting = asyncio.gather(name_tenant.adelay(value))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    value["a"] = 2
    await waiting
    assert await arguments() == [[{"a": 1}]]


@committed
async def test_under_force_sync_each_runs_in_the_context_of_its_caller(settings: Any) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, force_sync=True)

    async def call(number: int) -> Any:
        tenant.set(f"tenant {number}")
        return await (await name_tenant.adelay(number)).aresult(timeout=10)

    assert await asyncio.gather(call(1), call(2)) == ["1 of tenant 1", "2 of tenant 2"]


# ----------------------------------------------------------------------------------------------------- failures


@committed
async def test_a_call_that_the_database_refuses_fails_alone(written: list[list[Any]], sent: NotingPublisher) -> None:
    absent = TaskGroup(pk=10**6)
    calls = [add.adelay(number, 1, **({"__i3group__": absent} if number in (3, 6) else {})) for number in range(8)]
    answers = await all_of(*calls)
    assert [type(answer) for answer in answers if isinstance(answer, Exception)] == [IntegrityError] * 2
    assert [number for number, answer in enumerate(answers) if isinstance(answer, Exception)] == [3, 6]
    assert await arguments() == [[number, 1] for number in (0, 1, 2, 4, 5, 7)]
    assert len(sent.messages) == 6
    assert written[0] == list(range(8))


@committed
async def test_arguments_that_are_refused_fail_alone(written: list[list[Any]]) -> None:
    answers = await all_of(add.adelay(1, 2), add.adelay(2, object()), add.adelay(3), add.adelay(4, 5))  # type: ignore[arg-type, call-arg]
    assert [type(answer).__name__ for answer in answers] == [
        "ChainHandle",
        "ArgumentError",
        "ArgumentError",
        "ChainHandle",
    ]
    assert written == [[1, 4]]
    with pytest.raises(ArgumentError, match="object"):
        await add.adelay(1, object())  # type: ignore[arg-type]


@committed
async def test_keys_are_for_each_call_as_ever(written: list[list[Any]]) -> None:
    once = add.using(idempotency_key="k")
    handles = await asyncio.gather(
        *(only_one.adelay(7) for _ in range(3)), *(once.adelay(number, 1) for number in range(3)), add.adelay(9, 9)
    )
    assert len({handle.task_execution_id for handle in handles}) == 3
    assert [9] in written


@committed
async def test_an_outage_is_told_to_all_and_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = []

    def enqueue(calls: Any, **options: Any) -> Any:
        attempts.append(len(calls))
        raise OperationalError("the connection was lost")

    monkeypatch.setattr(writing, "enqueue", enqueue)
    answers = await all_of(*(add.adelay(number, 1) for number in range(5)))
    assert [str(answer) for answer in answers] == ["the connection was lost"] * 5
    assert attempts == [5]
    monkeypatch.undo()
    await add.adelay(1, 2)


# ------------------------------------------------------------------------------------------------- cancellation


async def with_the_thread_busy(then: Callable[[], Any]) -> None:
    """Let `then` run while the thread of the calls is occupied."""
    free = threading.Event()
    busy = asyncio.ensure_future(sync_to_async(free.wait)(10))
    try:
        await asyncio.sleep(0)
        await then()
    finally:
        free.set()
        await busy


async def rounds_of_the_loop() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@committed
async def test_a_cancelled_caller_is_left_out_and_the_others_are_written() -> None:
    calls: list[asyncio.Task[Any]] = []

    async def cancel_one() -> None:
        calls.extend(asyncio.ensure_future(add.adelay(number, 1)) for number in range(3))
        await rounds_of_the_loop()
        calls[1].cancel()
        await rounds_of_the_loop()

    await with_the_thread_busy(cancel_one)
    answers = await all_of(*calls)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [False, True, False]
    assert await arguments() == [[0, 1], [2, 1]]


@committed
async def test_when_all_are_cancelled_nothing_is_written_and_later_calls_are() -> None:
    async def cancel_all() -> None:
        calls = [asyncio.ensure_future(add.adelay(number, 1)) for number in range(3)]
        await rounds_of_the_loop()
        for call in calls:
            call.cancel()
        await all_of(*calls)

    await with_the_thread_busy(cancel_all)
    await asyncio.wait_for(add.adelay(7, 7), 10)
    assert await arguments() == [[7, 7]]
    assert not any(writing._batches.values())


@committed
async def test_a_call_that_is_cancelled_at_once_does_not_hold_the_next_up() -> None:
    call = asyncio.ensure_future(add.adelay(1, 1))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait_for(add.adelay(2, 2), 10)
    assert [2, 2] in await arguments()


# ------------------------------------------------------------------------------------------------- transactions


async def three() -> list[Any]:
    return await asyncio.gather(*(add.adelay(number, 1) for number in range(3)))


@committed
@pytest.mark.parametrize("is_kept", [True, False])
def test_inside_atomic_they_are_part_of_it(sent: NotingPublisher, written: list[list[Any]], is_kept: bool) -> None:
    with transaction.atomic():
        async_to_sync(three)()
        assert (written, sent.messages) == ([[0], [1], [2]], [])
        transaction.set_rollback(not is_kept)
    assert TaskExecution.objects.count() == len(sent.messages) == (3 if is_kept else 0)


class UnderTestCase(TestCase):
    def test_sync(self) -> None:
        with self.captureOnCommitCallbacks() as callbacks:
            async_to_sync(three)()
        assert (TaskExecution.objects.count(), len(callbacks)) == (3, 3)

    async def test_async(self) -> None:
        await three()
        assert await sync_to_async(lambda: transaction.get_connection().in_atomic_block)()
        assert await TaskExecution.objects.acount() == 3


async def view(request: HttpRequest) -> HttpResponse:
    await three()
    if "fail" in request.GET:
        raise ZeroDivisionError
    return HttpResponse("enqueued")


def atomic_view(request: HttpRequest) -> HttpResponse:
    return async_to_sync(view)(request)


urlpatterns = [path("async/", view), path("atomic/", atomic_view)]


@committed
@pytest.mark.urls(__name__)
async def test_requests_write_their_calls_as_their_transactions_say(
    sent: NotingPublisher, written: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = AsyncClient(raise_request_exception=False)
    assert (await client.get("/async/?fail")).status_code == 500
    assert (written, len(sent.messages)) == ([[0, 1, 2]], 3), "without a transaction they are written before it fails"
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    assert (await client.get("/atomic/?fail")).status_code == 500
    assert len(sent.messages) == 3
    assert (await client.get("/atomic/")).content == b"enqueued"
    assert (await TaskExecution.objects.acount(), len(sent.messages)) == (6, 6)


@committed
def test_a_loop_that_ends_leaves_nothing_behind() -> None:
    def in_a_loop() -> None:
        try:
            asyncio.run(three())
        finally:
            connections.close_all()

    threads = [threading.Thread(target=in_a_loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: not writing._batches or not any(writing._batches.values()))
    assert TaskExecution.objects.count() == 6

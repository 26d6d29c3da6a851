"""A paused queue under every way of running: a worker's stream, a push, the rows, and the processes that enqueue."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from i3tasks import task
from i3tasks.conf import get_config
from i3tasks.engine import outbox
from i3tasks.engine.dispatcher import Dispatcher
from i3tasks.engine.until_empty import until_empty
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store.operations import READ_PAUSES, WITHHOLD
from i3tasks.store.pauses import ASIDE_FROM, known_pauses, pause, resume
from i3tasks.store.requests import TryRef
from tests.shop.tasks import add
from tests.support.rigs import NotingPublisher, afinished, auntil, working

pytestmark = pytest.mark.django_db(transaction=True)

apause, aresume = sync_to_async(pause), sync_to_async(resume)


@task(max_retries=0)
async def hold(seconds: float) -> str:
    """Runs until its queue's pause is in force."""
    while not known_pauses.hold(None):
        await asyncio.sleep(0.02)
    await asyncio.sleep(seconds)
    return "held"


@pytest.mark.usefixtures("on_embedded")
async def test_a_worker_closes_the_stream_ends_what_runs_and_opens_it_again() -> None:
    async with working() as worker:
        running = await hold.adelay(0.3)
        while not await TaskExecutionTry.objects.filter(started_at__isnull=False).aexists():
            await auntil(lambda: True)
        [receiver, other] = worker._receivers
        await apause("default")
        waiting = [await add.adelay(1, 2), await add.adelay(3, 4)]
        neighbour = await add.using(queue_name="heavy").adelay(5, 6)
        await afinished(2)
        assert await running.aresult() == "held"
        assert await neighbour.aresult() == 11
        await auntil(lambda: receiver._streams is None and not receiver._leaving)
        assert other._streams is not None
        waiting += [await add.adelay(7, 8)]
        late = await TaskExecution.objects.filter(outcome__isnull=True).acount()
        await aresume("default")
        assert [await handle.aresult(timeout=20) for handle in waiting] == [3, 7, 15]
        assert late == 3
    assert await TaskExecutionTry.objects.acount() == 5


@pytest.mark.usefixtures("sent")
async def test_working_off_what_is_there_ends_before_a_paused_queue() -> None:
    await add.adelay(1, 2)
    await apause("default")
    await sync_to_async(known_pauses.read)()
    async with asyncio.timeout(10):
        await until_empty(["default", "heavy"], lambda: 0)
    await add.using(queue_name="heavy").adelay(1, 2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await until_empty(["default", "heavy"], lambda: 0)


@pytest.mark.usefixtures("sent")
async def test_a_call_in_place_runs_whatever_is_paused() -> None:
    await apause("default")
    assert (await add.arun(1, 2)).is_success


@pytest.mark.parametrize("batch", [500, 2])
def test_a_dispatcher_publishes_nothing_of_it_and_makes_all_due_at_its_end(
    batch: int, sent: NotingPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("i3tasks.engine.dispatcher.BATCH", batch)
    pause("default")
    tries = [add.delay(1, 2).task_execution_try for _ in range(5)]
    other = add.using(queue_name="heavy").delay(1, 2).task_execution_try
    TaskExecutionTry.objects.update(dispatch_at="2020-01-01T00:00Z")
    sent.messages.clear()
    dispatcher = Dispatcher()
    dispatcher.pass_while_busy()
    assert sent.try_ids == [other.pk]
    assert TaskExecutionTry.objects.filter(dispatch_at__gte=ASIDE_FROM).count() == 5
    resume("default")
    dispatcher.pass_while_busy()
    assert sorted(sent.try_ids[1:]) == sorted(task_try.pk for task_try in tries)


def test_a_process_that_enqueues_learns_of_a_pause_by_its_publishes(
    sent: NotingPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    posted: list[Any] = []

    def post_all(operation: Any, requests: Any, **_: Any) -> None:
        posted.extend((operation, request) for request in requests)

    monkeypatch.setattr(outbox.writer, "post_all", post_all)
    known_pauses.forget()
    pause("default")
    handle = add.delay(1, 2)
    sent.messages[0].on_done(sent.messages[:1], None)
    sent.messages[0].on_done(sent.messages[:1], None)
    assert [operation for operation, _ in posted].count(READ_PAUSES) == 1
    READ_PAUSES.run([None], now=timezone.now())
    ref = TryRef.of(handle.task_execution_try)
    outbox.send([ref])
    assert len(sent.messages) == 1
    assert posted[-1] == (WITHHOLD, ref)
    WITHHOLD.run([ref], now=timezone.now())
    assert TaskExecutionTry.objects.get().dispatch_at >= ASIDE_FROM  # type: ignore[operator]


def test_what_is_withheld_when_its_queue_was_just_resumed_is_due(sent: NotingPublisher) -> None:
    ref, claimed = (TryRef.of(add.delay(1, 2).task_execution_try) for _ in range(2))
    TaskExecutionTry.objects.filter(pk=claimed.try_id).update(dispatch_at=None)
    sent.messages.clear()
    WITHHOLD.run([ref, claimed], now=timezone.now())
    assert not known_pauses.hold(None)
    Dispatcher().pass_once()
    assert sent.try_ids == [ref.try_id]


def test_queues_are_named_as_rows_name_them() -> None:
    pause(None)
    known_pauses.read()
    assert known_pauses.hold(None)
    assert known_pauses.hold(get_config().queue(None).name)

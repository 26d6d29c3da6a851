"""Work that no message brings: when a worker looks for it, and that it gets done at a decent rate."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from io import StringIO
from typing import Any

import anyio
import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.utils import timezone

from i3tasks import RetryPolicy, chain, group
from i3tasks.broker import clients
from i3tasks.broker.publisher import get_publisher
from i3tasks.conf import get_config
from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.engine import outbox
from i3tasks.engine.fallback import COST, COST_OF_POLLING, FULL_SECONDS, LOOK_SECONDS, Fallback, QueueSource
from i3tasks.engine.gateway import writer
from i3tasks.engine.pool import Room
from i3tasks.exceptions import StoreUnavailable, TaskFailed
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store.fallback import WaitingRequest, take_waiting
from i3tasks.store.operations import IN_ORDER, READ_PAUSES, TAKE_WAITING, WITHHOLD
from i3tasks.store.pauses import known_pauses, pause, resume
from i3tasks.store.requests import TryRef
from i3tasks.types import DatabaseQueue
from tests.shop.tasks import aadd, add, fail
from tests.support.children import COMMAND, Children, free_port
from tests.support.rigs import NotingPublisher, afinished, auntil, working

FEW = timedelta(seconds=15)
ZERO = timedelta(0)
BACKLOG = int(os.environ.get("I3TASKS_BACKLOG", "20000"))
RATE = 3
"""How many times slower than with a broker a worker may be without one."""


# ------------------------------------------------------------------------------------------------- when it looks


@dataclass
class Hears:
    """What a receiver would say of itself."""

    is_down: bool = False
    quiet_seconds: float = 0.0
    doubted: int = 0

    def doubt(self) -> None:
        self.doubted += 1


class Answers:
    """A store that notes what it is asked, and answers what a test says."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.asked: list[WaitingRequest] = []

    async def ask(self, operation: Any, request: Any, at_commit: Any = None) -> Any:
        self.asked.append(request)
        self._rig.seconds += self._rig.takes
        if isinstance(self._rig.answer, Exception):
            raise self._rig.answer
        return self._rig.answer


class Rig:
    """A fallback in a world of its own."""

    def __init__(self, *receivers: Hears | None) -> None:
        self.seconds = 100.0
        self.takes = 0.0
        self.answer: Sequence[TryRef] | Exception = []
        self.room = Room(10, 4)
        self.begun: list[Any] = []
        self.store = Answers(self)
        sources = [QueueSource(f"q{number}", receiver, topic=f"t{number}") for number, receiver in enumerate(receivers)]
        self.fallback = Fallback(
            sources,
            store=self.store,  # type: ignore[arg-type]
            room=lambda: self.room,
            begin=self.begun.append,
            seconds=15,
            clock=replace(SYSTEM_CLOCK, monotonic=lambda: self.seconds),
        )

    async def after(self, seconds: float) -> list[WaitingRequest]:
        """What a turn so much later asks for."""
        self.seconds += seconds
        self.store.asked.clear()
        self.pause = await self.fallback.turn()
        return list(self.store.asked)


def refs(count: int) -> list[TryRef]:
    return [TryRef(number, number, "m", "f", "q0", None) for number in range(count)]  # type: ignore[arg-type]


@pytest.fixture
def publisher(sent: NotingPublisher, monkeypatch: pytest.MonkeyPatch) -> NotingPublisher:
    monkeypatch.setattr("i3tasks.engine.fallback.get_publisher", lambda: sent)
    return sent


@pytest.mark.usefixtures("publisher")
async def test_while_messages_come_it_asks_nothing() -> None:
    rig = Rig(Hears(quiet_seconds=14.9))
    assert await rig.after(0) == []
    assert rig.pause == LOOK_SECONDS


@pytest.mark.usefixtures("publisher")
async def test_in_silence_it_asks_once_for_what_was_published_long_ago() -> None:
    rig = Rig(Hears(quiet_seconds=15))
    assert await rig.after(0) == [WaitingRequest(("q0",), FEW, FEW, 10, 4, FEW)]
    assert await rig.after(14) == []
    assert len(await rig.after(1.1)) == 1


@pytest.mark.usefixtures("publisher")
async def test_while_a_stream_is_down_it_asks_at_once_and_often() -> None:
    rig = Rig(Hears(is_down=True))
    assert await rig.after(0) == [WaitingRequest(("q0",), ZERO, ZERO, 10, 4, FEW)]
    assert len(await rig.after(LOOK_SECONDS)) == 1


@pytest.mark.usefixtures("publisher")
async def test_the_rows_of_a_paused_queue_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_pauses, "_paused", {"q0": 1})
    rig = Rig(Hears(is_down=True), Hears(is_down=True))
    assert await rig.after(0) == [WaitingRequest(("q1",), ZERO, ZERO, 10, 4, FEW)]
    monkeypatch.setattr(known_pauses, "_paused", {})
    assert await rig.after(0) == [WaitingRequest(("q0",), ZERO, ZERO, 10, 4, FEW)]


async def test_while_pubsub_takes_nothing_only_the_unpublished_are_asked_for(publisher: NotingPublisher) -> None:
    publisher.is_available = False
    rig = Rig(Hears(quiet_seconds=1))
    assert await rig.after(0) == [WaitingRequest(("q0",), None, ZERO, 10, 4, FEW)]
    assert await Rig(Hears(quiet_seconds=20)).after(0) == [WaitingRequest(("q0",), FEW, ZERO, 10, 4, FEW)]


async def test_while_a_topic_refuses_its_tries_are_asked_for_though_they_are_put_off(
    publisher: NotingPublisher,
) -> None:
    publisher.refusing.add("t0")
    receivers = Hears(quiet_seconds=1), Hears(quiet_seconds=1)
    rig = Rig(*receivers)
    rig.answer = refs(1)
    for _ in range(2):
        assert await rig.after(LOOK_SECONDS) == [WaitingRequest(("q0",), None, FEW, 10, 4, FEW)]
    assert receivers[0].doubted == 0, "its stream can't bring what its topic does not take"


@pytest.mark.usefixtures("publisher")
async def test_queues_that_want_the_same_share_a_query() -> None:
    rig = Rig(Hears(is_down=True), Hears(quiet_seconds=1), Hears(is_down=True))
    assert [request.queues for request in await rig.after(0)] == [("q0", "q2")]


@pytest.mark.usefixtures("publisher")
async def test_without_room_it_asks_nothing() -> None:
    rig = Rig(Hears(is_down=True))
    rig.room = Room(0, 0)
    assert await rig.after(0) == []
    assert rig.pause == FULL_SECONDS


@pytest.mark.usefixtures("publisher")
async def test_what_it_finds_is_begun_and_more_is_asked_for_soon(events: list[str]) -> None:
    hears = Hears(quiet_seconds=99)
    rig = Rig(hears)
    rig.answer = refs(3)
    await rig.after(0)
    assert rig.begun == rig.answer
    assert len(await rig.after(LOOK_SECONDS)) == 1
    rig.answer = refs(10)
    await rig.after(LOOK_SECONDS)
    assert rig.pause == FULL_SECONDS
    assert len(await rig.after(0)) == 1, "there was no more room"
    assert events.count("fallback_begun") == 1
    assert hears.doubted == 4, "it should have brought them"


@pytest.mark.usefixtures("publisher")
async def test_when_all_threads_are_taken_it_asks_again_as_soon_as_one_is_free() -> None:
    rig = Rig(Hears(is_down=True))
    rig.answer = [replace(ref, module_name="tests.shop.tasks", func_name="add") for ref in refs(4)]
    await rig.after(0)
    assert rig.pause == FULL_SECONDS
    rig.room = Room(6, 0)
    assert await rig.after(FULL_SECONDS) == []
    rig.room = Room(7, 1)
    assert len(await rig.after(FULL_SECONDS)) == 1
    rig.room = Room(6, 0)
    assert len(await rig.after(LOOK_SECONDS)) == 1, "coroutines wait for no thread"


@pytest.mark.usefixtures("publisher")
async def test_a_query_that_takes_long_is_repeated_seldom() -> None:
    rig = Rig(Hears(is_down=True))
    rig.takes = 2.0
    await rig.after(0)
    assert await rig.after(2.0 * COST - 1) == []
    rig.answer = refs(1)
    assert len(await rig.after(1.1)) == 1
    assert await rig.after(2.0 * COST_OF_POLLING - 1) == [], "tries were found"
    assert len(await rig.after(1.1)) == 1


async def test_the_next_turn_comes_when_a_queue_is_due() -> None:
    rig = Rig(None)
    rig.takes = 0.6 * LOOK_SECONDS
    rig.answer = refs(1)
    await rig.after(0)
    assert await rig.after(LOOK_SECONDS) == []
    assert rig.pause == pytest.approx(0.2 * LOOK_SECONDS)
    assert len(await rig.after(rig.pause + 0.001)) == 1
    assert rig.pause == LOOK_SECONDS


async def test_a_database_queue_is_asked_as_often_as_it_says() -> None:
    rig = Rig(None)
    rig.takes = 2.0
    await rig.after(0)
    assert await rig.after(2.0 * COST_OF_POLLING - 1) == []
    assert len(await rig.after(1.1)) == 1, "though nothing was found"


@pytest.mark.usefixtures("publisher")
@pytest.mark.parametrize("error", [StoreUnavailable("away"), RuntimeError("a bug")])
async def test_an_error_of_the_store_is_outlived(error: Exception, events: list[str]) -> None:
    rig = Rig(Hears(is_down=True))
    rig.answer = error
    await rig.after(0)
    assert events == ([] if isinstance(error, StoreUnavailable) else ["internal_error"])
    rig.answer = refs(1)
    await rig.after(LOOK_SECONDS)
    assert len(rig.begun) == 1


# ---------------------------------------------------------------------------------------------- that it gets done


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Ids of the tries that workers took without a message."""
    ids: list[int] = []

    def noting(requests: Any, **options: Any) -> Any:
        answers = take_waiting(requests, **options)
        ids.extend(ref.try_id for refs in answers for ref in refs)
        return answers

    noted = replace(TAKE_WAITING, run=noting)
    operations = tuple(noted if operation is TAKE_WAITING else operation for operation in IN_ORDER)
    monkeypatch.setattr("i3tasks.store.writer.IN_ORDER", operations)
    monkeypatch.setattr("i3tasks.engine.fallback.TAKE_WAITING", noted)
    yield ids


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    with counted(monkeypatch) as ids:
        yield ids


async def seconds_for(count: int) -> float:
    """How long a worker that runs takes for so many tasks."""
    before = await TaskExecution.objects.acount()
    began = time.perf_counter()
    await aadd.adelay_many([(number, 1) for number in range(count)])
    await afinished(before + count, 90)
    return time.perf_counter() - began


@pytest.mark.django_db(transaction=True)
async def test_without_a_broker_it_works_at_a_decent_rate(embedded: str, settings: Any, taken: list[int]) -> None:
    settings.PUBSUB_CONFIG = {"EMULATOR": True, "HOST": embedded, "PROJECT_ID": "rate"}
    async with working():
        await seconds_for(10)
        normal = await seconds_for(3000)
    assert taken == []
    get_publisher().retire()
    settings.PUBSUB_CONFIG = {"EMULATOR": True, "HOST": f"127.0.0.1:{free_port()}", "PROJECT_ID": "rate"}
    async with working():
        await seconds_for(10)  # with these it finds out
        alone = await seconds_for(3000)
    print(f"3000 tasks took {alone / normal:.1f} times as long without a broker ({alone:.2f} s)")
    assert alone < RATE * normal
    assert len(taken) >= 3010
    assert await TaskExecutionTry.objects.acount() == 6020
    assert await TaskExecutionTry.objects.filter(is_success=True).acount() == 6020


@pytest.mark.django_db(transaction=True)
async def test_each_task_is_run_within_seconds_without_a_broker(settings: Any) -> None:
    settings.PUBSUB_CONFIG = {"EMULATOR": True, "HOST": f"127.0.0.1:{free_port()}", "PROJECT_ID": "away"}
    async with working():
        await (await add.adelay(0, 0)).aresult(timeout=60)
        for number in range(5):
            began = time.perf_counter()
            assert await (await add.adelay(number, 1)).aresult(timeout=10) == number + 1
            print(f"{time.perf_counter() - began:.2f} s")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("on_embedded")
async def test_what_the_broker_has_lost_is_run_soon(settings: Any, sent: NotingPublisher, events: list[str]) -> None:
    """It confirmed the messages, its stream goes on, and nothing ever comes."""
    settings.I3TASKS = replace(settings.I3TASKS, fallback_seconds=0.5)
    async with working():
        await add.adelay_many([(number, 1) for number in range(20)])
        await aadd.using(queue_name="heavy").adelay_many([(number, 1) for number in range(20)])
        [message.on_done([message], None) for message in sent.messages]
        await afinished(40)
    assert await TaskExecutionTry.objects.acount() == 40
    assert {"fallback_begun"} <= set(events)
    assert not {"broker_unavailable", "internal_error"} & set(events)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("on_embedded")
async def test_what_a_deleted_topic_refuses_is_run_soon(settings: Any, events: list[str]) -> None:
    """Its subscription streams on, and the dispatcher publishes its tries ever more seldom."""
    await asyncio.to_thread(call_command, "i3tasks_ensure_pubsub", stdout=StringIO())
    settings.I3TASKS = replace(
        settings.I3TASKS, fallback_seconds=0.5, publish_grace_seconds=60, run_queue_create_command_on_startup=False
    )
    async with working():
        assert await (await add.adelay(1, 1)).aresult(timeout=10) == 2
        publisher, subscriber = clients.make_admin(get_config().pubsub)
        await asyncio.to_thread(publisher.delete_topic, topic=get_config().queue(None).topic)
        clients.close(publisher)
        clients.close(subscriber)
        await add.adelay_many([(number, 1) for number in range(20)])
        await auntil(lambda: "publish_failed" in events)
        await TaskExecutionTry.objects.filter(is_completed=False).aupdate(
            dispatch_at=timezone.now() + timedelta(hours=1)
        )
        await afinished(21)
    assert "broker_unavailable" not in events


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("on_embedded")
async def test_none_waits_for_messages_and_nothing_else(settings: Any, sent: NotingPublisher, taken: list[int]) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, fallback_seconds=None)
    handle = await add.adelay(1, 1)
    [message.on_done([message], None) for message in sent.messages]
    async with working():
        await auntil(lambda: True)
    assert taken == []
    assert (await TaskExecutionTry.objects.aget(task_execution=handle.task_execution_id)).started_at is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("on_embedded")
async def test_of_a_long_backlog_that_moves_nothing_is_taken(
    settings: Any, taken: list[int], events: list[str]
) -> None:
    """It waits in Pub/Sub for far longer than the fallback's patience."""
    settings.I3TASKS = replace(settings.I3TASKS, fallback_seconds=1)
    for _ in range(0, BACKLOG, 2000):
        await aadd.adelay_many([(number, 1) for number in range(2000)])
    began = time.perf_counter()
    async with working():
        await afinished(BACKLOG, 250)
    print(f"{BACKLOG} tasks in {time.perf_counter() - began:.1f} s")
    assert taken == []
    assert events.count("try_refused") == 0
    assert not {"broker_unavailable", "internal_error"} & set(events)


# ------------------------------------------------------------------------------------------- queues without Pub/Sub


LOCAL = DatabaseQueue("local", poll_seconds=0.1)


@pytest.fixture
def without_pubsub(settings: Any) -> None:
    """All queues are in the database, and there is no broker."""
    settings.I3TASKS = replace(settings.I3TASKS, default_queue=LOCAL, other_queues=(DatabaseQueue("heavy"),))
    settings.PUBSUB_CONFIG = {"EMULATOR": True, "HOST": f"127.0.0.1:{free_port()}", "PROJECT_ID": "none"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("without_pubsub")
async def test_a_database_queue_needs_no_broker(events: list[str]) -> None:
    async with working():
        handles = [await add.adelay(number, 1) for number in range(5)]
        deferred = await add.using(run_after=timedelta(seconds=0.5)).adelay(1, 2)
        assert [await handle.aresult(timeout=20) for handle in handles] == [1, 2, 3, 4, 5]
        assert await deferred.aresult(timeout=20) == 3
        failing = await fail.using(retry=RetryPolicy(max_retries=2, base_seconds=0)).adelay()
        heavy = await aadd.using(queue_name="heavy").adelay(3, 4)
        assert await heavy.aresult(timeout=20) == 7
        with pytest.raises(TaskFailed):
            await failing.aresult(timeout=20)
    assert await TaskExecutionTry.objects.filter(task_execution=failing.task_execution_id).acount() == 3
    assert not {"broker_unavailable", "fallback_begun", "publish_failed", "provisioning_failed"} & set(events)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("without_pubsub")
async def test_workflows_on_a_database_queue_wait_for_no_dispatcher(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(self: Any) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr("i3tasks.engine.dispatcher.Dispatcher.run", nothing)
    async with working():
        album = group(add.s(number, 1) for number in range(5)).then(aadd.s(1, 1))
        whole = await (album | chain(add.s(2, 2), aadd.using(queue_name="heavy").s(3, 3))).adelay()
        assert await whole.aresult(timeout=20) == 6


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("without_pubsub")
def test_nothing_is_left_to_do_when_a_call_on_a_database_queue_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    posted: list[Any] = []
    monkeypatch.setattr(outbox.writer, "post", lambda operation, request: posted.append((operation, request)))
    monkeypatch.setattr(outbox.writer, "post_all", lambda operation, requests, **_: posted.extend(requests))
    known_pauses.forget()
    add.delay_many([(1, 2)] * 3)
    assert posted == [(READ_PAUSES, None)], "once in a while it asks what is paused"
    pause(None)
    known_pauses.read()
    handle = add.delay(1, 2)
    assert posted[1:] == [(WITHHOLD, TryRef.of(handle.task_execution_try))]  # type: ignore[arg-type]
    assert handle.task_execution_try.publish_count == 1  # type: ignore[union-attr]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("without_pubsub")
async def test_a_paused_database_queue_runs_what_came_meanwhile_once_it_is_resumed() -> None:
    async with working():
        await sync_to_async(pause)("heavy")
        unaware = await aadd.using(queue_name="heavy").adelay(1, 2)
        await sync_to_async(known_pauses.read)()
        aware = await aadd.using(queue_name="heavy").adelay(3, 4)
        assert await (await add.adelay(5, 6)).aresult(timeout=20) == 11
        waiting = TaskExecutionTry.objects.filter(started_at__isnull=True)
        assert await waiting.acount() == 2
        await sync_to_async(resume)("heavy")
        assert [await handle.aresult(timeout=20) for handle in (unaware, aware)] == [3, 7]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("without_pubsub")
async def test_a_database_queue_needs_no_fallback(settings: Any) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, fallback_seconds=None)
    async with working():
        assert await (await add.adelay(1, 2)).aresult(timeout=20) == 3


@pytest.mark.django_db(transaction=True)
async def test_database_queues_and_others_live_together(embedded: str, settings: Any, taken: list[int]) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, other_queues=(LOCAL,))
    settings.PUBSUB_CONFIG = {"EMULATOR": True, "HOST": embedded, "PROJECT_ID": "together"}
    async with working():
        pulled = await add.adelay(1, 2)
        local = await add.using(queue_name="local").adelay(3, 4)
        assert [await pulled.aresult(timeout=20), await local.aresult(timeout=20)] == [3, 7]
    assert taken == [local.task_execution_try.pk]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("without_pubsub")
def test_a_worker_of_database_queues_loads_no_pubsub_client(settings: Any) -> None:
    children = Children(settings.PUBSUB_CONFIG)
    children.changes["database_queue"] = "local"
    with children.all_ended():
        handle = add.delay(1, 2)
        worker = children.start("-X", "importtime", COMMAND, "run-worker", "--max-tasks", "1")
        assert worker.ends(60) == 0, worker.output[-2000:]
    assert handle.result(timeout=1) == 3
    assert "i3tasks.engine.worker" in worker.output
    assert "google" not in worker.output
    assert "grpc" not in worker.output
    assert "Started the embedded emulator" not in worker.output


@pytest.mark.usefixtures("without_pubsub")
def test_there_is_nothing_to_make_in_pubsub_for_database_queues(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("i3tasks_ensure_pubsub")
    assert "nothing to make in Pub/Sub" in capsys.readouterr().out


@pytest.mark.django_db(transaction=True)
def test_a_try_of_a_database_queue_can_be_found_at_once(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Confirmations of publishes are gathered for a while, and workers find no unconfirmed try."""
    settings.I3TASKS = replace(settings.I3TASKS, default_queue=LOCAL, other_queues=())
    monkeypatch.setattr("i3tasks.store.writer.gather_seconds", lambda: 3600.0)
    task_try = aadd.delay(1, 2).task_execution_try
    assert writer._thread.flush(10)  # which hurries nothing that is gathered
    task_try.refresh_from_db()
    assert task_try.publish_count == 1

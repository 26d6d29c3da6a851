"""Receiving, on both emulators: flow control, drain, outages, and sessions that end by themselves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from i3tasks.broker.handover import Hand, Inbox
from i3tasks.broker.publisher import get_publisher
from i3tasks.broker.receiver import Incoming, Receiver
from i3tasks.emulator import EmulatorProcess
from tests.broker.conftest import SECONDS, Broker, eventually, new_emulator
from tests.broker.proxy import Proxy

if TYPE_CHECKING:
    from tests.broker.conftest import Events


class Deliveries:
    """Collects what is delivered, and lets a test wait for it."""

    def __init__(self, answer: Callable[[Incoming], None] = lambda incoming: None) -> None:
        self.all: list[Incoming] = []
        self._answer = answer
        self._changed = asyncio.Condition()
        self._arrived = asyncio.Event()

    def __call__(self, incoming: Incoming) -> None:
        self.all.append(incoming)
        self._answer(incoming)
        self._arrived.set()

    @property
    def data(self) -> list[bytes]:
        return [incoming.delivery.data for incoming in self.all]

    async def until(self, condition: Callable[[], bool], seconds: float = SECONDS) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self._arrived.clear()
                await self._arrived.wait()

    async def count(self, count: int) -> list[Incoming]:
        await self.until(lambda: len(self.all) >= count)
        return self.all


@asynccontextmanager
async def receiving(
    broker: Broker, deliver: Callable[[Incoming], None], *, max_messages: int = 100, drain: float = 5.0
) -> AsyncIterator[Receiver]:
    """A running receiver of the default queue, drained at the end."""
    receiver = Receiver(broker.queue, max_messages=max_messages)
    running = asyncio.ensure_future(receiver.run(deliver))
    try:
        yield receiver
    finally:
        receiver.stop()
        await asyncio.wait_for(running, SECONDS)
        await receiver.drain(drain)


class Acks:
    """What the broker confirmed to have been acked: data is unknown here, so acks are only counted."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = threading.Condition()

    def add(self, count: int) -> None:
        with self._changed:
            self.count += count
            self._changed.notify_all()


@pytest.fixture
def acks(monkeypatch: pytest.MonkeyPatch) -> Acks:
    """Counts acks that the broker has answered."""
    from i3tasks.broker.streaming import _Subscriber

    acks = Acks()
    acknowledge = _Subscriber.acknowledge

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = acknowledge(self, *args, **kwargs)
        acks.add(len(kwargs["ack_ids"]))
        return answer

    monkeypatch.setattr(_Subscriber, "acknowledge", counting)
    return acks


async def no_library_threads() -> None:
    """Wait until the threads of Google's library are gone."""
    await asyncio.to_thread(
        eventually, lambda: not any(map(_is_library_thread, threading.enumerate())), "the library's threads end"
    )


def _is_library_thread(thread: threading.Thread) -> bool:
    wanted = ("Thread-CallbackRequestDispatcher", "Thread-ConsumeBidirectionalStream", "Thread-LeaseMaintainer")
    return thread.name.startswith((*wanted, "Thread-Heartbeater", "Thread-RegularStreamShutdown", "Thread-OnRpc"))


# --------------------------------------------------------------------------------------------- everyday


async def test_a_delivery_says_what_was_published(broker: Broker) -> None:
    broker.ensure()
    broker.publish(b"hello").wait()
    deliveries = Deliveries(Incoming.ack)

    async with receiving(broker, deliveries):
        [incoming] = await deliveries.count(1)

    delivery = incoming.delivery
    assert (delivery.data, dict(delivery.attributes)) == (b"hello", {"encoding": "utf-8"})
    assert delivery.queue_name == "default"
    assert delivery.message_id
    assert delivery.delivery_attempt == 1
    assert delivery.publish_time.tzinfo is UTC
    assert abs(datetime.now(UTC) - delivery.publish_time) < timedelta(minutes=5)


async def test_deliver_runs_on_the_loop_and_needs_no_thread_per_message(broker: Broker, acks: Acks) -> None:
    broker.ensure()
    loop_thread = threading.current_thread()
    before = set(threading.enumerate())
    threads: set[threading.Thread] = set()
    most: list[int] = []

    def answer(incoming: Incoming) -> None:
        threads.add(threading.current_thread())
        most.append(len(set(threading.enumerate()) - before))
        incoming.ack()

    deliveries = Deliveries(answer)
    async with receiving(broker, deliveries, max_messages=500):
        broker.publish(*(b"%d" % n for n in range(1000)))
        await deliveries.until(lambda: len(set(deliveries.data)) == 1000)

    assert threads == {loop_thread}
    assert max(most) <= 12
    assert acks.count >= 1000
    await no_library_threads()


async def test_no_more_than_max_messages_are_unanswered(broker: Broker) -> None:
    broker.ensure()
    held: list[Incoming] = []
    most: list[int] = []

    def hold(incoming: Incoming) -> None:
        held.append(incoming)
        most.append(len(held))
        if len(held) == 5:
            asyncio.get_running_loop().call_later(0.01, free)

    def free() -> None:
        while held:
            held.pop().ack()

    deliveries = Deliveries(hold)
    async with receiving(broker, deliveries, max_messages=5):
        broker.publish(*(b"%d" % n for n in range(50)))
        await deliveries.until(lambda: len(set(deliveries.data)) == 50)
        free()

    assert max(most) == 5


async def test_a_nack_brings_the_message_again(broker: Broker) -> None:
    broker.change(retry_minimum_backoff_seconds=None, retry_maximum_backoff_seconds=None)
    broker.ensure()
    broker.publish(b"again").wait()

    def nack_once(incoming: Incoming) -> None:
        if len(deliveries.all) == 1:
            incoming.nack()
        else:
            incoming.ack()

    deliveries = Deliveries(nack_once)
    async with receiving(broker, deliveries):
        _, second = (await deliveries.count(2))[:2]

    assert second.delivery.data == b"again"
    assert second.delivery.delivery_attempt == 2


async def test_a_deliver_that_raises_is_an_event_and_a_nack(broker: Broker, events: Events) -> None:
    broker.change(retry_minimum_backoff_seconds=None, retry_maximum_backoff_seconds=None)
    broker.ensure()
    broker.publish(b"x").wait()

    def fail_once(incoming: Incoming) -> None:
        if len(deliveries.all) == 1:
            raise RuntimeError("oops")
        incoming.ack()

    deliveries = Deliveries(fail_once)
    async with receiving(broker, deliveries):
        await deliveries.count(2)

    assert "oops" in events.named("internal_error")[0]["error"]


# ------------------------------------------------------------------------------------------ stop and drain


async def test_drain_sends_the_acks_of_what_finishes_after_stop(broker: Broker, acks: Acks) -> None:
    broker.ensure()
    deliveries = Deliveries()
    receiver = Receiver(broker.queue, max_messages=100)
    running = asyncio.ensure_future(receiver.run(deliveries))
    broker.publish(*(b"%d" % n for n in range(20)))
    held = list(await deliveries.count(20))

    receiver.stop()
    await asyncio.wait_for(running, SECONDS)
    draining = asyncio.ensure_future(receiver.drain(SECONDS))

    def answer(incoming: Incoming) -> None:
        incoming.ack()
        incoming.nack()  # too late to count

    with ThreadPoolExecutor(10) as threads:
        list(threads.map(answer, held))

    await asyncio.wait_for(draining, SECONDS / 2)
    assert acks.count == 20
    await no_library_threads()


async def test_what_was_acked_in_a_drain_does_not_come_again(settings: Any, tmp_path: Any) -> None:
    """Killing the emulator ends all leases: what was not acked comes again at once, before what is published later."""
    with EmulatorProcess(data_dir=tmp_path) as first:
        broker = Broker(settings, first.host_port)
        broker.ensure()
        deliveries = Deliveries()
        async with receiving(broker, deliveries, drain=1):
            broker.publish(*(b"%d" % n for n in range(10))).wait()
            for incoming in list(await deliveries.count(10))[:7]:
                asyncio.get_running_loop().call_later(0.2, incoming.ack)
            held = deliveries.all[7:]
            get_publisher().flush(SECONDS)
            # leaving stops it, with everything in hand; three are never answered
        first.kill()

        with EmulatorProcess(data_dir=tmp_path) as second:
            broker.point_to(second.host_port)
            later = Deliveries(Incoming.ack)
            async with receiving(broker, later):
                await later.count(3)
                broker.publish(b"marker").wait()
                await later.until(lambda: b"marker" in later.data)
            get_publisher().retire()

    assert sorted(later.data) == sorted([*(incoming.delivery.data for incoming in held), b"marker"])


async def test_drain_is_bounded(broker: Broker) -> None:
    broker.ensure()
    deliveries = Deliveries()
    receiver = Receiver(broker.queue, max_messages=100)
    running = asyncio.ensure_future(receiver.run(deliveries))
    broker.publish(b"never answered")
    await deliveries.count(1)
    receiver.stop()
    await running

    start = time.monotonic()
    await receiver.drain(0.2)

    assert 0.2 <= time.monotonic() - start < SECONDS / 4
    deliveries.all[0].ack()  # goes nowhere, and hurts nobody
    await no_library_threads()


async def test_a_receiver_that_is_cancelled_can_be_drained(broker: Broker, acks: Acks) -> None:
    broker.ensure()
    deliveries = Deliveries()
    receiver = Receiver(broker.queue, max_messages=100)
    running = asyncio.ensure_future(receiver.run(deliveries))
    broker.publish(b"x")
    [incoming] = await deliveries.count(1)

    running.cancel()
    await asyncio.wait({running})
    incoming.ack()
    await receiver.drain(5)

    assert acks.count == 1
    await no_library_threads()


async def test_stopping_before_it_has_started_and_draining_twice_are_harmless(broker: Broker) -> None:
    broker.ensure()
    receiver = Receiver(broker.queue, max_messages=100)
    running = asyncio.ensure_future(receiver.run(Deliveries()))
    await asyncio.sleep(0)
    receiver.stop()
    await asyncio.wait_for(running, SECONDS)
    await receiver.drain(1)
    await receiver.drain(1)

    await asyncio.wait_for(receiver.run(Deliveries()), SECONDS)
    await no_library_threads()


def test_a_loop_that_closes_without_a_drain_breaks_no_thread(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    broken: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", broken.append)
    monkeypatch.setattr(Receiver, "stop", lambda self: None)  # nobody was left to call it
    broker.ensure()
    receiver = Receiver(broker.queue, max_messages=100)

    async def receive_one() -> None:
        deliveries = Deliveries(Incoming.ack)
        running = asyncio.ensure_future(receiver.run(deliveries))
        broker.publish(b"1")
        await deliveries.count(1)
        running.cancel()

    asyncio.run(receive_one())
    session = receiver._session
    assert session is not None
    broker.publish(b"2", b"3")
    eventually(lambda: len(receiver._inbox._messages) == 2, "both messages arrive")
    session.stop()
    session.close()

    assert broken == []


# ------------------------------------------------------------------------------------ outages and endings


async def test_an_outage_is_outlived(broker: Broker, wire: Proxy, events: Events) -> None:
    broker.ensure()
    deliveries = Deliveries(Incoming.ack)
    async with receiving(broker, deliveries):
        broker.publish(b"before")
        await deliveries.count(1)
        wire.cut()
        facts = await asyncio.to_thread(events.wait_for, "broker_unavailable")
        wire.heal()
        await until_published(broker, b"after")
        await until_delivered(broker, deliveries)

    assert (facts["what"], facts["queue"]) == ("receiver", "default")
    assert len([one for one in events.named("broker_unavailable") if one["what"] == "receiver"]) == 1
    assert len([one for one in events.named("broker_recovered") if "queue" in one]) == 1


@pytest.mark.usefixtures("impatient")
async def test_a_broker_that_restarts_empty_is_provisioned_and_streamed_from(
    broker: Broker, kind: str, events: Events
) -> None:
    with new_emulator(kind) as first, Proxy(first.host_port) as wire:
        broker.point_to(wire.host_port)
        broker.ensure()
        deliveries = Deliveries(Incoming.ack)
        async with receiving(broker, deliveries):
            broker.publish(b"before")
            await deliveries.count(1)
            await asyncio.to_thread(first.stop)
            with new_emulator(kind) as second:
                wire.target = second.host_port
                await until_published(broker, b"after")
                await deliveries.until(lambda: b"after" in deliveries.data)
            get_publisher().retire()

    assert [one for name in ("broker_recovered", "receiver_restarted") for one in events.named(name) if "queue" in one]


async def test_a_drain_during_an_outage_is_bounded_and_leaves_nothing(
    broker: Broker, wire: Proxy, events: Events
) -> None:
    broker.ensure()
    deliveries = Deliveries()
    receiver = Receiver(broker.queue, max_messages=100)
    running = asyncio.ensure_future(receiver.run(deliveries))
    broker.publish(b"x")
    [incoming] = await deliveries.count(1)
    wire.cut()
    await asyncio.to_thread(events.wait_for, "broker_unavailable")

    receiver.stop()
    await asyncio.wait_for(running, SECONDS)
    incoming.ack()
    start = time.monotonic()
    await receiver.drain(0.2)

    assert time.monotonic() - start < SECONDS / 3
    await no_library_threads()


async def test_a_session_that_ends_by_itself_is_followed_by_another(broker: Broker, acks: Acks, events: Events) -> None:
    broker.ensure()
    deliveries = Deliveries()
    async with receiving(broker, deliveries) as receiver:
        broker.publish(b"1", b"2")
        held = list(await deliveries.count(2))
        first = receiver._session
        assert first is not None
        end_with(first, RuntimeError("injected"))
        await asyncio.to_thread(events.wait_for, "broker_unavailable")
        await until_delivered(broker, deliveries)
        assert receiver._session is not first
        for incoming in {*held, *deliveries.all}:
            incoming.ack()

    assert "injected" in events.named("broker_unavailable")[0]["error"]
    assert events.named("receiver_restarted")
    assert acks.count >= 3  # those of the first session went through the second
    await no_library_threads()


async def test_a_missing_subscription_is_made(broker: Broker) -> None:
    deliveries = Deliveries(Incoming.ack)
    async with receiving(broker, deliveries):
        broker.publish(b"x")
        await deliveries.count(1)


async def test_a_missing_subscription_that_may_not_be_made_is_named_and_waited_for(
    broker: Broker, events: Events
) -> None:
    broker.change(run_queue_create_command_on_startup=False)
    deliveries = Deliveries(Incoming.ack)
    async with receiving(broker, deliveries):
        facts = await asyncio.to_thread(events.wait_for, "broker_unavailable")
        broker.ensure()
        broker.publish(b"x")
        await deliveries.count(1)

    assert broker.queue.subscription in facts["error"]
    assert "i3tasks ensure-pubsub" in facts["error"]


async def until_delivered(broker: Broker, deliveries: Deliveries) -> None:
    """Publish until something new arrives. Google's emulator gives some messages to streams that are no more."""
    before = len(deliveries.all)
    async with asyncio.timeout(SECONDS):
        while len(deliveries.all) == before:
            broker.publish(b"new").wait()
            with suppress(TimeoutError):
                await deliveries.until(lambda: len(deliveries.all) > before, 0.5)


async def until_published(broker: Broker, data: bytes) -> None:
    await asyncio.to_thread(eventually, lambda: broker.publish(data).wait() == [None], "the broker is back")


def end_with(session: Any, error: Exception) -> None:
    """Let the library give the subscription up."""
    session._future._StreamingPullFuture__manager.close(error)


# ------------------------------------------------------------------------------------------- inbox and hand


class Message:
    def __init__(self) -> None:
        self.answers: list[str] = []

    def ack(self) -> None:
        self.answers.append("ack")

    def nack(self) -> None:
        self.answers.append("nack")


def test_only_the_first_answer_counts() -> None:
    message, hand = Message(), Hand()
    incoming = Incoming(None, message, hand)  # type: ignore[arg-type]

    with ThreadPoolExecutor(8) as threads:
        for _ in range(50):
            threads.submit(incoming.ack)
            threads.submit(incoming.nack)

    assert len(message.answers) == 1
    assert len(hand) == 0


def test_the_hand_is_empty_only_after_the_last_answer_was_sent() -> None:
    message, hand, emptied = Message(), Hand(), []
    incoming = Incoming(None, message, hand)  # type: ignore[arg-type]
    hand.when_empty(lambda: emptied.append(list(message.answers)))
    assert emptied == []

    incoming.nack()
    assert emptied == [["nack"]]

    hand.when_empty(lambda: emptied.append([]))
    assert emptied == [["nack"], []]


def test_the_loop_is_woken_once_for_many_messages() -> None:
    wakes: list[int] = []
    inbox = Inbox(lambda: wakes.append(1))

    for n in range(100):
        inbox.put(n)
    assert (inbox.empty(), len(wakes)) == (list(range(100)), 1)

    inbox.put(100)
    assert (inbox.empty(), len(wakes)) == ([100], 2)

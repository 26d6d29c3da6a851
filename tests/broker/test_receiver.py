"""Receiving, on both emulators: everyday work, flow control, stop and drain."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from i3tasks.broker.publisher import get_publisher
from i3tasks.broker.receiver import Incoming, Receiver
from i3tasks.emulator import EmulatorProcess
from tests.broker.conftest import SECONDS, Broker, eventually
from tests.broker.receiving import Deliveries, no_library_threads, receiving

if TYPE_CHECKING:
    from tests.broker.conftest import Acks, Events


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
    deliveries.all[0].ack()  # goes nowhere, and harms nothing
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
    monkeypatch.setattr(Receiver, "stop", lambda self: None)  # nothing was left to call it
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

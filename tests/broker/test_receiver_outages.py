"""Receiving, on both emulators: outages, restarts, missing subscriptions, and sessions that end by themselves."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from i3tasks.broker.publisher import get_publisher
from i3tasks.broker.receiver import Incoming, Receiver
from tests.broker.conftest import SECONDS, eventually, new_emulator
from tests.broker.proxy import Proxy
from tests.broker.receiving import Deliveries, no_library_threads, receiving

if TYPE_CHECKING:
    from tests.broker.conftest import Acks, Broker, Events


async def test_an_outage_is_outlived(broker: Broker, wire: Proxy, events: Events) -> None:
    broker.ensure()
    deliveries = Deliveries(Incoming.ack)
    async with receiving(broker, deliveries):
        broker.publish(b"before")
        await deliveries.count(1)
        wire.cut()
        facts = await asyncio.to_thread(events.wait_for, "broker_unavailable", "receiver")
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
    await asyncio.to_thread(events.wait_for, "broker_unavailable", "receiver")

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
        await asyncio.to_thread(eventually, lambda: first.is_open, "what it delivers may be quicker than its opening")
        end_with(first, RuntimeError("injected"))
        await asyncio.to_thread(events.wait_for, "broker_unavailable", "receiver")
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
        facts = await asyncio.to_thread(events.wait_for, "broker_unavailable", "receiver")
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

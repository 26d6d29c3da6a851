"""A client whose threads end or hang is noticed, and its stream is opened again."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from i3tasks.broker import receiver as receivers
from i3tasks.broker import watchdog
from i3tasks.broker.errors import StreamBroken
from i3tasks.broker.receiver import Incoming, Receiver
from i3tasks.broker.watchdog import DOUBT_SECONDS, LONGEST_DOUBT_SECONDS, STUCK_SECONDS, Doubts, Watchdog
from i3tasks.core.clock import SYSTEM_CLOCK
from tests.broker.receiving import Deliveries, receiving
from tests.support.rigs import auntil

if TYPE_CHECKING:
    from tests.broker.conftest import Broker, Events


@dataclass
class Session:
    """What a watchdog sees of a session."""

    dead_threads: list[str] = field(default_factory=list)
    answers_waiting: int = 0
    answers_sent: int = 0


class Time:
    def __init__(self) -> None:
        self.seconds = 100.0
        self.clock = replace(SYSTEM_CLOCK, monotonic=lambda: self.seconds)


def test_a_thread_that_is_gone_at_two_looks_is_named() -> None:
    session = Session()
    dog = Watchdog(session, SYSTEM_CLOCK)
    assert dog.look() is None
    session.dead_threads = ["acks"]
    assert dog.look() is None, "it may be ending with its stream"
    assert "acks" in (dog.look() or "")
    session.dead_threads = []
    assert dog.look() is None


def test_acks_that_are_not_taken_up_are_noticed_and_those_that_fail_are_not() -> None:
    time, session = Time(), Session()
    dog = Watchdog(session, time.clock)
    time.seconds += 2 * STUCK_SECONDS
    assert dog.look() is None, "there were none"
    session.answers_waiting = 3
    time.seconds += STUCK_SECONDS - 1
    assert dog.look() is None
    session.answers_sent += 1  # whatever came of it
    assert dog.look() is None
    time.seconds += STUCK_SECONDS + 1
    assert "no ack" in (dog.look() or "")


def test_doubts_grow_with_time_and_slower_with_each_trial() -> None:
    time = Time()
    doubts = Doubts(time.clock)
    for wait in (DOUBT_SECONDS, 2 * DOUBT_SECONDS, 4 * DOUBT_SECONDS):
        assert not doubts.grow()
        time.seconds += wait - 1
        assert not doubts.grow()
        time.seconds += 2
        assert doubts.grow()
    for _ in range(9):
        doubts.grow()
        time.seconds += LONGEST_DOUBT_SECONDS + 1
        assert doubts.grow(), "no more than that"
    doubts.end()
    assert not doubts.grow()
    time.seconds += DOUBT_SECONDS + 1
    assert doubts.grow()


# ----------------------------------------------------------------------------------------- on a real client


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "WATCH_SECONDS", 0.05)


def manager_of(receiver: Receiver) -> Any:
    assert receiver._session is not None
    return receiver._session._future._StreamingPullFuture__manager


def end_acks(receiver: Receiver) -> None:
    from google.cloud.pubsub_v1.subscriber._protocol import helper_threads

    receiver._answers.put(helper_threads.STOP)


def end_leases(receiver: Receiver) -> None:
    manager_of(receiver)._leaser._stop_event.set()


def end_heartbeats(receiver: Receiver) -> None:
    manager_of(receiver)._heartbeater._stop_event.set()


def end_receiving(receiver: Receiver) -> None:
    """With the next response."""

    def leave(response: Any) -> None:
        raise SystemExit

    manager_of(receiver)._consumer._on_response = leave


KILLS = [end_acks, end_leases, end_heartbeats, end_receiving]


@pytest.mark.usefixtures("quick")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kill", KILLS)
async def test_a_thread_that_ends_is_followed_by_a_new_stream(broker: Broker, events: Events, kill: Any) -> None:
    broker.ensure()
    deliveries = Deliveries(Incoming.ack)
    async with receiving(broker, deliveries) as receiver:
        broker.publish(b"1")
        await deliveries.count(1)
        kill(receiver)
        if kill is end_receiving:
            broker.publish(b"2")
        facts = await asyncio.to_thread(events.wait_for, "receiver_broken")
        await until_delivered(broker, deliveries)
        await auntil(lambda: receiver.is_sound)
    assert facts["queue"] == "default"
    assert "A thread of the Pub/Sub client has ended" in facts["error"]
    assert events.named("receiver_restarted")


async def until_delivered(broker: Broker, deliveries: Deliveries) -> None:
    """Google's emulator gives some messages to streams that are no more."""
    before = len(deliveries.all)
    async with asyncio.timeout(30):
        while len(deliveries.all) == before:
            broker.publish(b"new").wait()
            with suppress(TimeoutError):
                await deliveries.until(lambda: len(deliveries.all) > before, 0.5)


@pytest.mark.usefixtures("quick")
async def test_a_thread_that_hangs_over_acks_is_noticed(
    broker: Broker, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "STUCK_SECONDS", 0.5)
    broker.ensure()
    deliveries = Deliveries()
    hung, freed = asyncio.Event(), threading.Event()
    async with receiving(broker, deliveries) as receiver:
        broker.publish(b"1", b"2")
        await deliveries.count(2)
        loop = asyncio.get_running_loop()

        def hang(*args: Any, **kwargs: Any) -> None:
            loop.call_soon_threadsafe(hung.set)
            freed.wait(30)

        assert receiver._session is not None
        receiver._session._client.acknowledge = hang
        deliveries.all[0].ack()
        await asyncio.wait_for(hung.wait(), 10)
        deliveries.all[1].ack()
        facts = await asyncio.to_thread(events.wait_for, "receiver_broken")
        freed.set()
        await until_delivered(broker, deliveries)
    assert "no ack" in facts["error"]


@pytest.mark.usefixtures("quick")
async def test_a_client_that_breaks_again_and_again_is_given_up(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receivers, "_LONGEST_BACKOFF_SECONDS", 0.01)
    broker.ensure()
    receiver = Receiver(broker.queue, max_messages=10)
    running = asyncio.ensure_future(receiver.run(lambda incoming: incoming.ack()))
    sessions: list[Any] = []
    async with asyncio.timeout(30):
        while not running.done():
            session = receiver._session
            if session is not None and session.is_open and session not in sessions and not session.dead_threads:
                sessions.append(session)
                end_leases(receiver)
            await asyncio.sleep(0.01)
    with pytest.raises(StreamBroken, match="extends leases"):
        running.result()
    assert len(sessions) == receivers._MOST_BREAKS
    assert not receiver.is_sound
    await receiver.drain(0.1)


@pytest.mark.usefixtures("quick")
async def test_a_stream_in_doubt_is_opened_again(
    broker: Broker, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "DOUBT_SECONDS", 0.0)
    broker.ensure()
    deliveries = Deliveries(Incoming.ack)
    async with receiving(broker, deliveries) as receiver:
        broker.publish(b"1")
        await deliveries.count(1)
        receiver.doubt()
        facts = await asyncio.to_thread(events.wait_for, "receiver_broken")
        await until_delivered(broker, deliveries)
    assert "brought nothing" in facts["error"]

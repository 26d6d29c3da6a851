"""The broker's state over time and restarts, with a clock of its own: retention, expiration, dead letters, seek."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from i3tasks.emulator import wire
from i3tasks.emulator.messages import Consumer, LeasedMessage
from i3tasks.emulator.state import BrokerState
from i3tasks.emulator.status_errors import StatusError
from i3tasks.emulator.storage import SqliteJournal
from i3tasks.emulator.subscription import Subscription

TOPIC, LETTERS, NAME = "projects/p/topics/topic", "projects/p/topics/letters", "projects/p/subscriptions/sub"
DAY = 86_400


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Run:
    """A broker on a folder, restarted at will."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "emulator.sqlite3"
        self.clock = Clock()
        self.start()

    def start(self) -> None:
        self.journal = SqliteJournal(self._path, lambda error: pytest.fail(str(error)))
        self.broker = BrokerState(self.journal, self.clock)
        self.broker.load()

    def restart(self) -> None:
        self.journal.close()
        self.start()

    async def topic(self, name: str = TOPIC, **fields: Any) -> None:
        _, committed = self.broker.create_topic(wire.Topic(name=name, **fields))
        await self.settle(committed)

    async def subscribe(self, topic: str = TOPIC, name: str = NAME, **fields: Any) -> None:
        request = wire.Subscription(name=name, topic=topic, **fields)
        _, committed = self.broker.create_subscription(request)
        await self.settle(committed)

    async def publish(self, *data: bytes, key: str = "", **attributes: str) -> None:
        messages = [wire.PubsubMessage(data=each, ordering_key=key, attributes=attributes) for each in data]
        _, committed = self.broker.publish(self.broker.topic(TOPIC), messages)
        await self.settle(committed)

    async def settle(self, committed: Any = None) -> None:
        """Until everything asked for so far is on disk and has arrived."""
        from i3tasks.emulator.storage import WriteBatch

        if committed is not None:
            await committed
        await self.journal.write(WriteBatch())

    @property
    def subscription(self) -> Subscription:
        return self.broker.subscription(NAME)

    def take(self, name: str = NAME) -> list[LeasedMessage]:
        return self.broker.subscription(name).take(Consumer(), 100)

    def data(self, name: str = NAME) -> list[bytes]:
        return [wire.PubsubMessage.FromString(each.message.payload).data for each in self.take(name)]

    async def ack(self, *deliveries: LeasedMessage) -> None:
        _, committed = self.subscription.acknowledge([self.subscription.ack_id(each) for each in deliveries])
        await self.settle(committed)

    async def nack(self, *deliveries: LeasedMessage) -> None:
        ack_ids = [self.subscription.ack_id(each) for each in deliveries]
        _, committed = self.subscription.modify(ack_ids, [0] * len(ack_ids))
        await self.settle(committed)

    async def sweep(self) -> None:
        self.broker.sweep()
        await self.settle()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    run.journal.close()


async def test_what_is_not_acked_is_delivered_after_a_restart(run: Run) -> None:
    await run.topic()
    await run.subscribe()
    await run.publish(b"acked", b"held", b"waiting")
    held = run.take()
    await run.ack(held[0])
    run.restart()
    assert run.data() == [b"held", b"waiting"]


async def test_an_ack_id_from_before_a_restart_still_counts(run: Run) -> None:
    await run.topic()
    await run.subscribe()
    await run.publish(b"data")
    held = run.take()
    run.restart()
    await run.ack(*held)
    assert run.data() == []


async def test_an_ack_id_from_before_a_restart_is_void_where_delivery_is_exactly_once(run: Run) -> None:
    await run.topic()
    await run.subscribe(enable_exactly_once_delivery=True)
    await run.publish(b"data")
    held = run.take()
    run.restart()
    failures, _ = run.subscription.acknowledge([run.subscription.ack_id(held[0])])
    assert len(failures) == 1
    assert run.data() == [b"data"]


async def test_message_ids_grow_over_restarts_and_backward_clocks(run: Run) -> None:
    await run.topic()
    await run.subscribe()
    await run.publish(b"1")
    run.clock.now -= 500
    run.restart()
    await run.publish(b"2")
    await run.publish(b"3")
    first, *others = run.take()
    assert all(each.message.id > first.message.id and each.lease > first.message.id for each in others)


async def test_order_survives_a_restart(run: Run) -> None:
    await run.topic()
    await run.subscribe(enable_message_ordering=True)
    await run.publish(*[b"%d" % number for number in range(9)], key="a")
    held = run.take()
    await run.ack(*held[3:5])
    run.restart()
    assert run.data() == [b"%d" % number for number in range(9)]


async def test_attempts_survive_a_restart_and_end_in_the_dead_letters(run: Run) -> None:
    await run.topic()
    await run.topic(LETTERS)
    policy = {"dead_letter_topic": LETTERS, "max_delivery_attempts": 5}
    await run.subscribe(dead_letter_policy=policy)
    await run.subscribe(LETTERS, "projects/p/subscriptions/dead")
    await run.publish(b"data")
    for attempt in range(1, 6):
        deliveries = run.take()
        assert [each.attempt for each in deliveries] == [attempt]
        await run.nack(*deliveries)
        run.restart()
    assert run.data() == []
    assert run.data("projects/p/subscriptions/dead") == [b"data"]


async def test_without_its_dead_letter_topic_a_message_is_tried_on(run: Run) -> None:
    await run.topic()
    await run.topic(LETTERS)
    await run.subscribe(dead_letter_policy={"dead_letter_topic": LETTERS, "max_delivery_attempts": 5})
    await run.publish(b"data")
    await run.settle(run.broker.delete_topic(LETTERS))
    for attempt in range(1, 8):
        deliveries = run.take()
        assert [each.attempt for each in deliveries] == [attempt]
        await run.nack(*deliveries)
    await run.topic(LETTERS)
    await run.nack(*run.take())
    assert run.data() == []


async def test_messages_expire(run: Run) -> None:
    await run.topic()
    await run.subscribe(message_retention_duration={"seconds": 600})
    await run.publish(b"old")
    run.clock.now += 601
    await run.publish(b"new")
    await run.sweep()
    assert run.data() == [b"new"]
    run.restart()
    assert run.data() == [b"new"]
    assert len(run.journal.load().messages) == 1


async def test_an_unused_subscription_expires(run: Run) -> None:
    await run.topic()
    await run.subscribe()
    await run.subscribe(name="projects/p/subscriptions/forever", expiration_policy={})
    run.clock.now += 31 * DAY + 1
    run.restart()
    await run.sweep()
    assert list(run.broker.subscriptions) == ["projects/p/subscriptions/forever"]
    assert list(run.broker.topic(TOPIC).subscriptions) == ["projects/p/subscriptions/forever"]


async def test_a_used_subscription_does_not_expire(run: Run) -> None:
    await run.topic()
    await run.subscribe(expiration_policy={"ttl": {"seconds": DAY}})
    for _ in range(3):
        run.clock.now += DAY - 1
        await run.publish(b"data")
        await run.ack(*run.take())
        await run.sweep()
        run.restart()
    assert run.subscription.name == NAME


async def test_acked_messages_can_be_replayed_after_a_restart(run: Run) -> None:
    await run.topic()
    await run.subscribe(retain_acked_messages=True)
    await run.publish(b"1", b"2")
    await run.ack(*run.take())
    run.restart()
    assert run.data() == []
    await run.settle(run.broker.seek(run.subscription, 0))
    run.restart()
    assert run.data() == [b"1", b"2"]


async def test_a_topic_keeps_messages_for_later_subscriptions_over_a_restart(run: Run) -> None:
    await run.topic(message_retention_duration={"seconds": 600})
    await run.publish(b"1", kind="a")
    run.clock.now += 400
    await run.publish(b"2", kind="a")
    await run.publish(b"3", kind="b")
    run.clock.now += 300
    await run.sweep()
    run.restart()
    await run.subscribe(filter='attributes.kind = "a"')
    await run.settle(run.broker.seek(run.subscription, 0))
    assert run.data() == [b"2"]
    run.restart()
    assert run.data() == [b"2"]


async def test_a_topic_that_keeps_no_more_forgets_what_it_kept(run: Run) -> None:
    await run.topic(message_retention_duration={"seconds": 600})
    await run.publish(b"data")
    request = wire.UpdateTopicRequest(topic={"name": TOPIC}, update_mask={"paths": ["message_retention_duration"]})
    await run.settle(run.broker.update_topic(request)[1])
    await run.subscribe()
    await run.settle(run.broker.seek(run.subscription, 0))
    assert run.data() == []
    run.restart()
    assert not run.broker.topic(TOPIC).kept


async def test_a_detached_subscription_stays_detached_and_empty(run: Run) -> None:
    await run.topic()
    await run.subscribe()
    await run.publish(b"data")
    await run.settle(run.broker.detach(run.subscription))
    await run.publish(b"more")
    run.restart()
    with pytest.raises(StatusError, match="detached"):
        run.take()
    assert run.journal.load().messages == []


async def test_deleted_things_stay_deleted(run: Run) -> None:
    await run.topic()
    await run.subscribe()
    await run.publish(b"data")
    await run.settle(run.broker.delete_topic(TOPIC))
    run.restart()
    assert run.subscription.config.topic == "_deleted-topic_"
    assert run.data() == [b"data"]
    await run.settle(run.broker.delete_subscription(NAME))
    run.restart()
    assert not run.broker.subscriptions
    assert run.journal.load().messages == []


async def test_a_message_for_a_subscription_that_goes_meanwhile_is_dropped(run: Run) -> None:
    await run.topic()
    await run.subscribe()
    run.broker.publish(run.broker.topic(TOPIC), [wire.PubsubMessage(data=b"data")])
    await run.settle(run.broker.delete_subscription(NAME))
    assert run.journal.load().messages == []


async def test_streams_share_a_small_backlog(run: Run) -> None:
    await run.topic()
    await run.subscribe()
    await run.publish(*[b"data"] * 10)
    assert run.subscription.share(500) == 10
    run.subscription.streams = 3
    assert run.subscription.share(500) == 3
    assert run.subscription.share(2) == 2


async def test_a_push_subscription_can_not_be_exactly_once(run: Run) -> None:
    await run.topic()
    with pytest.raises(StatusError, match="pull"):
        await run.subscribe(enable_exactly_once_delivery=True, push_config={"push_endpoint": "http://127.0.0.1:1/"})

"""Filters, order, exactly-once, back-off, dead letters and seek."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from google.api_core import exceptions as errors
from google.protobuf import duration_pb2

from tests.broker.contract.conftest import Got, World


def _data(got: list[Got]) -> list[bytes]:
    return [each.data for each in got]


# -- filters


@pytest.mark.differs("filters")
@pytest.mark.parametrize(
    ("text", "matching"),
    [
        ("attributes:name", "co com net"),
        ('attributes.name = "com"', "com"),
        ('attributes.name != "com"', "co net none"),
        ('hasPrefix(attributes.name, "co")', "co com"),
        ("NOT attributes:name", "none"),
        ('attributes.name = "com" OR attributes.name = "net"', "com net"),
        ('attributes:lang AND (attributes.name = "co" OR attributes.name = "net")', "co net"),
        ('attributes:"lang" AND -hasPrefix(attributes.name, "co")', "net none"),
    ],
)
def test_a_filter_lets_through_what_matches(pubsub: World, text: str, matching: str) -> None:
    topic, subscription = pubsub.pair(filter=text)
    for name in ("co", "com", "net"):
        pubsub.publish(topic, name.encode(), name=name, lang="en")
    pubsub.publish(topic, b"none", lang="en")
    wanted = [name.encode() for name in matching.split()]
    assert sorted(_data(pubsub.pulled(subscription, len(wanted), ack=True))) == wanted
    assert pubsub.pull(subscription) == []


# -- order


def _ordered(pubsub: World, **fields: Any) -> tuple[str, str]:
    return pubsub.pair(enable_message_ordering=True, **fields)


def test_messages_of_a_key_come_in_order(pubsub: World) -> None:
    topic, subscription = _ordered(pubsub)
    for number in range(10):
        pubsub.publish(topic, b"a%d" % number, key="a")
        pubsub.publish(topic, b"b%d" % number, key="b")
    got: list[bytes] = []
    while len(got) < 20:
        got += _data(pubsub.pulled(subscription, 1, ack=True))
    for key in (b"a", b"b"):
        assert [data for data in got if data.startswith(key)] == [b"%s%d" % (key, number) for number in range(10)]


@pytest.mark.differs("order after a nack")
def test_a_nack_brings_back_the_message_and_all_after_it(pubsub: World) -> None:
    topic, subscription = _ordered(pubsub)
    pubsub.publish(topic, b"1", b"2", b"3", key="a")
    stream = pubsub.stream(subscription)
    got = stream.messages(3)
    assert _data(got) == [b"1", b"2", b"3"]
    pubsub.nack(subscription, got[:1])
    assert _data(stream.messages(3)) == [b"1", b"2", b"3"]


def test_a_key_stays_with_one_stream(pubsub: World) -> None:
    topic, subscription = _ordered(pubsub)
    streams = [pubsub.stream(subscription) for _ in range(2)]
    ids = pubsub.publish(topic, b"0", key="a")
    first = pubsub.first_of(streams)
    for _ in range(10):
        ids += pubsub.publish(topic, b"data", key="a")
    assert [got.message.message_id for got in first.messages(11)] == ids


def test_pulls_hold_one_batch_of_a_key_at_a_time(pubsub: World) -> None:
    topic, subscription = _ordered(pubsub)
    pubsub.publish(topic, b"1", b"2", key="a")
    got = pubsub.pulled(subscription, 1)
    assert pubsub.pull(subscription) == []
    pubsub.ack(subscription, got)
    assert _data(pubsub.pulled(subscription, 1)) == [b"2"]


def test_the_high_level_client_keeps_order(pubsub: World) -> None:
    topic, subscription = _ordered(pubsub)
    for number in range(30):
        pubsub.publisher.publish(topic, b"%d" % number, ordering_key="a")
    seen, done = pubsub.collector(30)
    pubsub.subscribe(subscription, lambda message: (seen.append(message.data), message.ack(), done()))
    pubsub.await_collector(done)
    assert seen == [b"%d" % number for number in range(30)]


# -- exactly once


@pytest.mark.differs("exactly-once")
def test_a_second_ack_is_refused_where_delivery_is_exactly_once(pubsub: World) -> None:
    topic, subscription = pubsub.pair(enable_exactly_once_delivery=True)
    pubsub.publish(topic, b"data")
    got = pubsub.pulled(subscription, ack=True)
    with pytest.raises(errors.FailedPrecondition) as refusal:
        pubsub.ack(subscription, got)
    assert refusal.value.reason is not None
    assert dict(refusal.value.metadata) == {got[0].ack_id: "PERMANENT_FAILURE_INVALID_ACK_ID"}


@pytest.mark.differs("exactly-once")
def test_an_ack_after_a_nack_is_refused_where_delivery_is_exactly_once(pubsub: World) -> None:
    topic, subscription = pubsub.pair(enable_exactly_once_delivery=True)
    pubsub.publish(topic, b"data")
    got = pubsub.pulled(subscription)
    pubsub.nack(subscription, got)
    with pytest.raises(errors.FailedPrecondition):
        pubsub.ack(subscription, got)
    with pytest.raises(errors.FailedPrecondition):
        pubsub.modify(subscription, got, 30)
    pubsub.pulled(subscription)


def test_the_high_level_client_gets_its_acks_confirmed(pubsub: World) -> None:
    topic, subscription = pubsub.pair(enable_exactly_once_delivery=True)
    pubsub.publish(topic, *[b"data"] * 20)
    acks, done = pubsub.collector(20)
    future = pubsub.subscribe(subscription, lambda message: (acks.append(message.ack_with_response()), done()))
    pubsub.await_collector(done)
    assert {ack.result(timeout=20).name for ack in acks} == {"SUCCESS"}
    future.cancel()
    future.result(timeout=20)
    pubsub.nothing_more(subscription, topic)


@pytest.mark.differs("exactly-once")
def test_a_stream_confirms_acks(pubsub: World) -> None:
    topic, subscription = pubsub.pair(enable_exactly_once_delivery=True)
    pubsub.publish(topic, b"data")
    stream = pubsub.stream(subscription)
    ack_id = stream.messages(1)[0].ack_id
    stream.send(modify_deadline_ack_ids=[ack_id], modify_deadline_seconds=[20])
    assert list(stream.response().modify_ack_deadline_confirmation.ack_ids) == [ack_id]
    stream.send(ack_ids=[ack_id])
    assert list(stream.response().acknowledge_confirmation.ack_ids) == [ack_id]
    stream.send(ack_ids=[ack_id])
    assert list(stream.response().acknowledge_confirmation.invalid_ack_ids) == [ack_id]


# -- retries and dead letters


@pytest.mark.differs("dead letters")
def test_attempts_are_counted_and_the_last_one_is_followed_by_the_dead_letter(pubsub: World) -> None:
    letters = pubsub.topic("letters")
    dead = pubsub.subscription(letters, "dead")
    policy = {"dead_letter_topic": letters, "max_delivery_attempts": 5}
    topic, subscription = pubsub.pair(dead_letter_policy=policy)
    ids = pubsub.publish(topic, b"data", kind="mail", key="k")
    for attempt in range(1, 6):
        got = pubsub.pulled(subscription)
        assert got[0].attempt == attempt
        pubsub.nack(subscription, got)
    letter = pubsub.pulled(dead, ack=True)[0]
    assert (letter.data, letter.message.ordering_key) == (b"data", "k")
    assert letter.message.message_id not in ids
    attributes = dict(letter.message.attributes)
    publish_time = attributes.pop("CloudPubSubDeadLetterSourceTopicPublishTime")
    assert datetime.datetime.fromisoformat(publish_time).tzinfo is not None
    assert attributes == {
        "kind": "mail",
        "CloudPubSubDeadLetterSourceDeliveryCount": "5",
        "CloudPubSubDeadLetterSourceSubscription": subscription.rsplit("/", 1)[-1],
        "CloudPubSubDeadLetterSourceSubscriptionProject": pubsub.project,
    }
    pubsub.nothing_more(subscription, topic)


def test_without_a_dead_letter_policy_a_message_is_tried_on(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    pubsub.publish(topic, b"data")
    for _ in range(12):
        got = pubsub.pulled(subscription)
        assert got[0].attempt == 0
        pubsub.nack(subscription, got)


@pytest.mark.differs("retry policy")
def test_a_retry_policy_delays_the_next_delivery(pubsub: World) -> None:
    policy = {"minimum_backoff": duration_pb2.Duration(seconds=2), "maximum_backoff": duration_pb2.Duration(seconds=2)}
    topic, subscription = pubsub.pair(retry_policy=policy)
    pubsub.publish(topic, b"first")
    pubsub.nack(subscription, pubsub.pulled(subscription))
    pubsub.nothing_more(subscription, topic)
    assert pubsub.pulled(subscription)[0].data == b"first"


# -- seek


def test_seeking_to_the_future_drops_the_backlog(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    pubsub.publish(topic, b"old", b"older")
    pubsub.subscriber.seek(request={"subscription": subscription, "time": _in(hours=1)})
    assert pubsub.pull(subscription) == []


def test_seeking_back_replays_acked_messages_that_are_retained(pubsub: World) -> None:
    topic, subscription = pubsub.pair(retain_acked_messages=True)
    pubsub.publish(topic, b"a", b"b")
    pubsub.pulled(subscription, 2, ack=True)
    pubsub.subscriber.seek(request={"subscription": subscription, "time": _in(hours=-1)})
    assert sorted(_data(pubsub.pulled(subscription, 2))) == [b"a", b"b"]


@pytest.mark.differs("topic retention")
def test_a_new_subscription_can_seek_to_what_its_topic_retains(pubsub: World) -> None:
    topic = pubsub.topic(message_retention_duration=duration_pb2.Duration(seconds=3600))
    pubsub.publish(topic, b"before")
    subscription = pubsub.subscription(topic)
    shown = pubsub.subscriber.get_subscription(subscription=subscription)
    assert shown.topic_message_retention_duration.total_seconds() == 3600
    pubsub.subscriber.seek(request={"subscription": subscription, "time": _in(hours=-1)})
    assert _data(pubsub.pulled(subscription)) == [b"before"]


def _in(**delta: int) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(**delta)

"""StreamingPull, raw and through the high-level client."""

from __future__ import annotations

import pytest
from google.api_core import exceptions as errors

from tests.broker.contract.conftest import World


def test_a_stream_brings_messages_as_they_are_published(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    stream = pubsub.stream(subscription)
    for number in range(3):
        pubsub.publish(topic, b"%d" % number)
        assert stream.messages(1)[0].data == b"%d" % number


def test_a_stream_takes_acks_and_nacks(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    stream = pubsub.stream(subscription)
    pubsub.publish(topic, b"a")
    first = stream.messages(1)[0]
    stream.send(modify_deadline_ack_ids=[first.ack_id], modify_deadline_seconds=[0])
    again = stream.messages(1)[0]
    assert again.message.message_id == first.message.message_id
    stream.send(ack_ids=[again.ack_id])
    pubsub.publish(topic, b"b")
    assert stream.messages(1)[0].data == b"b"


def test_every_response_tells_the_properties_of_the_subscription(pubsub: World) -> None:
    topic, subscription = pubsub.pair(enable_exactly_once_delivery=True, enable_message_ordering=True)
    stream = pubsub.stream(subscription)
    pubsub.publish(topic, b"a")
    properties = stream.response().subscription_properties
    assert properties.exactly_once_delivery_enabled
    assert properties.message_ordering_enabled


@pytest.mark.differs("flow control")
def test_a_stream_brings_no_more_messages_than_may_be_outstanding(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    stream = pubsub.stream(subscription, max_outstanding_messages=2)
    pubsub.publish(topic, *[b"data"] * 5)
    got = stream.messages(2)
    assert len(pubsub.pulled(subscription, 3)) == 3, "what the stream may not have is there for others"
    pubsub.publish(topic, b"next")
    pubsub.ack(subscription, got[:1])
    assert stream.messages(1)[0].data == b"next"


@pytest.mark.differs("flow control")
def test_a_stream_brings_no_more_bytes_than_may_be_outstanding(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    stream = pubsub.stream(subscription, max_outstanding_bytes=1_500)
    pubsub.publish(topic, *[b"x" * 1_000] * 4)
    stream.messages(2)
    assert len(pubsub.pulled(subscription, 2)) == 2


def test_a_stream_of_a_missing_subscription_is_refused(pubsub: World) -> None:
    stream = pubsub.stream(pubsub.subscription_name("missing"))
    assert isinstance(stream.error(), errors.NotFound)


def test_a_stream_ends_when_its_subscription_is_deleted(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    stream = pubsub.stream(subscription)
    pubsub.publish(topic, b"data")
    stream.messages(1)
    pubsub.subscriber.delete_subscription(subscription=subscription)
    assert isinstance(stream.error(), errors.NotFound)


@pytest.mark.parametrize("seconds", [9, 601])
def test_stream_deadlines_are_from_10_to_600_seconds(pubsub: World, seconds: int) -> None:
    _, subscription = pubsub.pair()
    stream = pubsub.stream(subscription, stream_ack_deadline_seconds=seconds)
    assert isinstance(stream.error(), errors.InvalidArgument)


@pytest.mark.parametrize(
    "fields",
    [
        {"subscription": "projects/p/subscriptions/sub"},
        pytest.param({"max_outstanding_messages": 5}, marks=pytest.mark.differs("stream requests")),
        {"modify_deadline_ack_ids": ["1-1-1"]},
        {"ack_ids": ["no such thing"]},
    ],
    ids=["subscription", "limits", "lengths", "ack id"],
)
def test_wrong_requests_end_the_stream(pubsub: World, fields: dict[str, object]) -> None:
    _, subscription = pubsub.pair()
    stream = pubsub.stream(subscription)
    stream.send(**fields)
    assert isinstance(stream.error(), errors.InvalidArgument)


def test_two_streams_share_the_messages(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    seen, done = pubsub.collector(200)
    for _ in range(2):
        pubsub.subscribe(subscription, lambda message: (seen.append(message.message_id), message.ack(), done()))
    ids = pubsub.publish(topic, *[b"data"] * 200)
    pubsub.await_collector(done)
    assert sorted(seen) == sorted(ids)


@pytest.mark.differs("abandoned streams")
def test_what_a_closed_stream_held_comes_back_after_its_deadline(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    stream = pubsub.stream(subscription)
    pubsub.publish(topic, b"data")
    got = stream.messages(1)
    pubsub.modify(subscription, got, 1)
    stream.close()
    assert pubsub.pulled(subscription)[0].data == b"data"


def test_the_high_level_client_receives_and_acks(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    seen, done = pubsub.collector(50)
    future = pubsub.subscribe(subscription, lambda message: (seen.append(message.message_id), message.ack(), done()))
    ids = pubsub.publish(topic, *[b"data"] * 50)
    pubsub.await_collector(done)
    future.cancel()
    future.result(timeout=20)
    assert sorted(seen) == sorted(ids)
    pubsub.nothing_more(subscription, topic)

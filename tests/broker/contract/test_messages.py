"""Publishing, pulling, and answering for messages one way or the other."""

from __future__ import annotations

from typing import Any

import pytest
from google.api_core import exceptions as errors

from tests.broker.contract.conftest import World


def test_a_message_arrives_as_it_was_published(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    ids = pubsub.publish(topic, b"\x00\xff data", key="key", kind="mail", empty="")
    got = pubsub.pulled(subscription)[0]
    assert (got.data, got.message.message_id, got.message.ordering_key) == (b"\x00\xff data", ids[0], "key")
    assert dict(got.message.attributes) == {"kind": "mail", "empty": ""}
    assert got.message.publish_time.timestamp() > 0
    assert got.attempt == 0


def test_every_subscription_gets_every_message(pubsub: World) -> None:
    topic = pubsub.topic()
    names = [pubsub.subscription(topic, name) for name in ("one", "two")]
    ids = pubsub.publish(topic, b"a", b"b", b"c")
    assert len(set(ids)) == 3
    for name in names:
        assert sorted(got.data for got in pubsub.pulled(name, 3, ack=True)) == [b"a", b"b", b"c"]


def test_a_subscription_gets_what_is_published_after_it(pubsub: World) -> None:
    topic = pubsub.topic()
    pubsub.publish(topic, b"before")
    subscription = pubsub.subscription(topic)
    pubsub.publish(topic, b"after")
    assert pubsub.pulled(subscription)[0].data == b"after"


def test_the_high_level_publisher_publishes(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    future = pubsub.publisher.publish(topic, b"data", kind="mail")
    assert pubsub.pulled(subscription)[0].message.message_id == future.result(timeout=10)


def test_an_empty_subscription_gives_nothing(pubsub: World) -> None:
    _, subscription = pubsub.pair()
    assert pubsub.pull(subscription) == []


def test_an_acked_message_does_not_come_back(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    pubsub.publish(topic, b"data")
    got = pubsub.pulled(subscription)
    pubsub.ack(subscription, got)
    pubsub.modify(subscription, got, 0)
    pubsub.nothing_more(subscription, topic)


def test_acking_twice_is_no_error(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    pubsub.publish(topic, b"data")
    got = pubsub.pulled(subscription, ack=True)
    pubsub.ack(subscription, got)


def test_a_nacked_message_comes_back_with_another_ack_id(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    pubsub.publish(topic, b"data")
    first = pubsub.pulled(subscription)
    pubsub.nack(subscription, first)
    second = pubsub.pulled(subscription)
    assert second[0].message.message_id == first[0].message.message_id
    assert second[0].ack_id != first[0].ack_id


def test_an_unanswered_message_comes_back(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    pubsub.publish(topic, b"data")
    pubsub.modify(subscription, pubsub.pulled(subscription), 1)
    assert pubsub.pulled(subscription)[0].data == b"data"


def test_an_outstanding_message_is_not_given_to_others(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    pubsub.publish(topic, b"data")
    pubsub.pulled(subscription)
    pubsub.nothing_more(subscription, topic)


def test_a_pull_waits_for_a_message(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    waiting = pubsub.in_background(lambda: pubsub.pulled(subscription))
    pubsub.publish(topic, b"data")
    assert waiting.result(timeout=20)[0].data == b"data"


def test_a_pull_brings_no_more_than_was_asked_for(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    pubsub.publish(topic, *[b"data"] * 5)
    assert len(pubsub.pull(subscription, 3)) <= 3


@pytest.mark.parametrize("count", [0, pytest.param(-1, marks=pytest.mark.differs("negative max_messages"))])
def test_a_pull_asks_for_at_least_one(pubsub: World, count: int) -> None:
    _, subscription = pubsub.pair()
    with pytest.raises(errors.InvalidArgument):
        pubsub.pull(subscription, count)


@pytest.mark.parametrize("seconds", [-1, pytest.param(601, marks=pytest.mark.differs("long deadlines"))])
def test_deadlines_are_from_0_to_600_seconds(pubsub: World, seconds: int) -> None:
    topic, subscription = pubsub.pair()
    pubsub.publish(topic, b"data")
    got = pubsub.pulled(subscription)
    with pytest.raises(errors.InvalidArgument):
        pubsub.modify(subscription, got, seconds)


def test_malformed_ack_ids_are_refused(pubsub: World) -> None:
    _, subscription = pubsub.pair()
    for method in (
        lambda: pubsub.subscriber.acknowledge(subscription=subscription, ack_ids=["no such thing"]),
        lambda: pubsub.subscriber.modify_ack_deadline(
            subscription=subscription, ack_ids=["no such thing"], ack_deadline_seconds=10
        ),
    ):
        with pytest.raises(errors.InvalidArgument):
            method()


def test_answers_name_at_least_one_ack_id(pubsub: World) -> None:
    _, subscription = pubsub.pair()
    with pytest.raises(errors.InvalidArgument):
        pubsub.subscriber.acknowledge(subscription=subscription, ack_ids=[])


def _request(topic: str, *messages: dict[str, Any]) -> dict[str, Any]:
    return {"topic": topic, "messages": list(messages)}


def test_a_message_needs_data_or_attributes(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    with pytest.raises(errors.InvalidArgument):
        pubsub.generated.publish(pubsub.publisher, request=_request(topic, {"data": b""}))
    with pytest.raises(errors.InvalidArgument):
        pubsub.generated.publish(pubsub.publisher, request=_request(topic))
    pubsub.generated.publish(pubsub.publisher, request=_request(topic, {"attributes": {"a": "b"}}))
    assert dict(pubsub.pulled(subscription)[0].message.attributes) == {"a": "b"}


@pytest.mark.differs("limits")
@pytest.mark.parametrize(
    "message",
    [
        {"data": b"x" * 10_000_001},
        {"attributes": {f"key{number}": "" for number in range(101)}},
        {"attributes": {"k" * 257: ""}},
        {"attributes": {"": "v"}},
        {"attributes": {"key": "v" * 1_025}},
        {"data": b"x", "ordering_key": "k" * 1_025},
    ],
    ids=["data", "attributes", "key", "empty key", "value", "ordering key"],
)
def test_messages_are_limited(pubsub: World, message: dict[str, Any]) -> None:
    topic = pubsub.topic()
    with pytest.raises(errors.InvalidArgument):
        pubsub.generated.publish(pubsub.publisher, request=_request(topic, message), timeout=10)


def test_a_request_has_at_most_1000_messages(pubsub: World) -> None:
    topic = pubsub.topic()
    with pytest.raises(errors.InvalidArgument):
        pubsub.generated.publish(pubsub.publisher, request=_request(topic, *[{"data": b"x"}] * 1_001))


def test_messages_at_their_limits_arrive(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    attributes = {f"{number:0256}": "v" * 1_024 for number in range(100)}
    pubsub.publish(topic, b"x" * 9_500_000, **attributes)
    got = pubsub.pulled(subscription)[0]
    assert len(got.data) == 9_500_000
    assert dict(got.message.attributes) == attributes

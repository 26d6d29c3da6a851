"""Subscriptions: create, get, update, list, delete, detach, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from google.api_core import exceptions as errors
from google.protobuf import duration_pb2

from tests.broker.contract.conftest import World


def test_defaults_are_filled_in(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    found = pubsub.subscriber.get_subscription(subscription=subscription)
    assert (found.name, found.topic, found.ack_deadline_seconds) == (subscription, topic, 10)
    assert found.message_retention_duration.total_seconds() == 7 * 86_400


@pytest.mark.differs("state")
def test_a_subscription_is_active(pubsub: World) -> None:
    _, subscription = pubsub.pair()
    assert pubsub.subscriber.get_subscription(subscription=subscription).state.name == "ACTIVE"


@pytest.mark.differs("default expiration")
def test_a_subscription_expires_after_31_days_unless_it_says_otherwise(pubsub: World) -> None:
    _, subscription = pubsub.pair()
    found = pubsub.subscriber.get_subscription(subscription=subscription)
    assert found.expiration_policy.ttl.total_seconds() == 31 * 86_400


def test_everything_asked_for_comes_back(pubsub: World) -> None:
    letters = pubsub.topic("letters")
    wanted: dict[str, Any] = {
        "ack_deadline_seconds": 30,
        "labels": {"team": "a"},
        "enable_message_ordering": True,
        "filter": 'attributes.kind = "mail"',
        "retain_acked_messages": True,
        "message_retention_duration": duration_pb2.Duration(seconds=1200),
        "dead_letter_policy": {"dead_letter_topic": letters, "max_delivery_attempts": 7},
        "retry_policy": {
            "minimum_backoff": duration_pb2.Duration(seconds=1),
            "maximum_backoff": duration_pb2.Duration(seconds=9),
        },
    }
    _, subscription = pubsub.pair(**wanted)
    found = pubsub.subscriber.get_subscription(subscription=subscription)
    assert {field: getattr(found, field) for field in ("ack_deadline_seconds", "filter", "retain_acked_messages")} == {
        field: wanted[field] for field in ("ack_deadline_seconds", "filter", "retain_acked_messages")
    }
    assert dict(found.labels) == {"team": "a"}
    assert found.enable_message_ordering
    assert found.dead_letter_policy.max_delivery_attempts == 7
    assert found.retry_policy.maximum_backoff.total_seconds() == 9


def test_a_subscription_is_created_once_and_for_an_existing_topic(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    with pytest.raises(errors.AlreadyExists):
        pubsub.subscriber.create_subscription(name=subscription, topic=topic)
    with pytest.raises(errors.NotFound):
        pubsub.subscription(pubsub.topic_name("missing"), "other")


def test_a_deleted_subscription_is_gone(pubsub: World) -> None:
    _, subscription = pubsub.pair()
    pubsub.subscriber.delete_subscription(subscription=subscription)
    for method in (pubsub.subscriber.get_subscription, pubsub.subscriber.delete_subscription):
        with pytest.raises(errors.NotFound):
            method(subscription=subscription)
    with pytest.raises(errors.NotFound):
        pubsub.pull(subscription)
    with pytest.raises(errors.NotFound):
        pubsub.subscriber.acknowledge(subscription=subscription, ack_ids=["x"])


def test_a_subscription_made_again_starts_empty(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    pubsub.publish(topic, b"old")
    pubsub.subscriber.delete_subscription(subscription=subscription)
    pubsub.subscriber.create_subscription(name=subscription, topic=topic)
    pubsub.publish(topic, b"new")
    assert pubsub.pulled(subscription)[0].data == b"new"


def test_subscriptions_are_listed_in_pages(pubsub: World) -> None:
    topic = pubsub.topic()
    names = [pubsub.subscription(topic, f"sub-{number}") for number in range(5)]
    pages = pubsub.subscriber.list_subscriptions(
        request={"project": f"projects/{pubsub.project}", "page_size": 2}
    ).pages
    found = [[each.name for each in page.subscriptions] for page in pages]
    assert max(map(len, found)) == 2
    assert sorted(name for each in found for name in each) == names


@pytest.mark.parametrize("seconds", [pytest.param(9, marks=pytest.mark.differs("short ack deadlines")), 601, -1])
def test_ack_deadlines_are_from_10_to_600_seconds(pubsub: World, seconds: int) -> None:
    topic = pubsub.topic()
    with pytest.raises(errors.InvalidArgument):
        pubsub.subscription(topic, ack_deadline_seconds=seconds)


@pytest.mark.parametrize(
    "name",
    [
        "projects/p/subscriptions/a",
        "projects/p/subscriptions/1abc",
        "projects/p/topics/abc",
        pytest.param("", marks=pytest.mark.differs("empty names")),
    ],
)
def test_names_are_checked(pubsub: World, name: str) -> None:
    topic = pubsub.topic()
    with pytest.raises(errors.InvalidArgument):
        pubsub.subscriber.create_subscription(name=name, topic=topic)


@pytest.mark.parametrize("seconds", [599, 31 * 86_400 + 1])
def test_retention_is_from_10_minutes_to_31_days(pubsub: World, seconds: int) -> None:
    topic = pubsub.topic()
    with pytest.raises(errors.InvalidArgument):
        pubsub.subscription(topic, message_retention_duration=duration_pb2.Duration(seconds=seconds))


@pytest.mark.parametrize("attempts", [4, 101])
def test_delivery_attempts_are_from_5_to_100(pubsub: World, attempts: int) -> None:
    topic, letters = pubsub.topic(), pubsub.topic("letters")
    policy = {"dead_letter_topic": letters, "max_delivery_attempts": attempts}
    with pytest.raises(errors.BadRequest):  # Google's emulator says OUT_OF_RANGE, which is one
        pubsub.subscription(topic, dead_letter_policy=policy)


def test_a_dead_letter_topic_must_exist(pubsub: World) -> None:
    topic = pubsub.topic()
    with pytest.raises(errors.NotFound):
        pubsub.subscription(topic, dead_letter_policy={"dead_letter_topic": pubsub.topic_name("missing")})


@pytest.mark.differs("filter syntax")
@pytest.mark.parametrize("text", ["nonsense", "attributes.a =", 'attributes.a = "b" AND', "x" * 257, 'data = "x"'])
def test_invalid_filters_are_refused(pubsub: World, text: str) -> None:
    topic = pubsub.topic()
    with pytest.raises(errors.InvalidArgument):
        pubsub.subscription(topic, filter=text)


def test_push_endpoints_are_urls(pubsub: World) -> None:
    topic = pubsub.topic()
    with pytest.raises(errors.InvalidArgument):
        pubsub.subscription(topic, push_config={"push_endpoint": "not a url"})


def test_an_update_changes_what_its_mask_names(pubsub: World) -> None:
    _, subscription = pubsub.pair(labels={"team": "a"})
    wanted = {"name": subscription, "ack_deadline_seconds": 60, "labels": {"team": "b"}}
    request = {"subscription": wanted, "update_mask": {"paths": ["ack_deadline_seconds"]}}
    pubsub.subscriber.update_subscription(request=request)
    found = pubsub.subscriber.get_subscription(subscription=subscription)
    assert (found.ack_deadline_seconds, dict(found.labels)) == (60, {"team": "a"})


@pytest.mark.parametrize("path", ["filter", "topic", "name", "no_such_field", "enable_message_ordering"])
def test_immutable_fields_are_not_updated(pubsub: World, path: str) -> None:
    _, subscription = pubsub.pair()
    with pytest.raises(errors.InvalidArgument):
        pubsub.subscriber.update_subscription(
            request={"subscription": {"name": subscription}, "update_mask": {"paths": [path]}}
        )


def test_updating_what_is_missing_is_not_found(pubsub: World) -> None:
    with pytest.raises(errors.NotFound):
        pubsub.subscriber.update_subscription(
            request={
                "subscription": {"name": pubsub.subscription_name("missing"), "ack_deadline_seconds": 20},
                "update_mask": {"paths": ["ack_deadline_seconds"]},
            }
        )


@pytest.mark.differs("detach")
def test_a_detached_subscription_gives_nothing(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    pubsub.publish(topic, b"dropped")
    stream = pubsub.stream(subscription)
    stream.messages(1)
    pubsub.publisher.detach_subscription(request={"subscription": subscription})
    assert pubsub.subscriber.get_subscription(subscription=subscription).detached
    assert list(pubsub.publisher.list_topic_subscriptions(topic=topic)) == []
    assert isinstance(stream.error(), errors.FailedPrecondition)
    with pytest.raises(errors.FailedPrecondition):
        pubsub.pull(subscription)


@pytest.mark.differs("unimplemented")
def test_what_is_not_implemented_says_so(pubsub: World) -> None:
    topic = pubsub.topic()
    with pytest.raises(errors.MethodNotImplemented, match=r"(?i)emulator"):
        pubsub.subscriber.create_snapshot(name=f"projects/{pubsub.project}/snapshots/snap", subscription=topic)

"""Topics: create, get, update, list, delete, and what is refused."""

from __future__ import annotations

import pytest
from google.api_core import exceptions as errors
from google.protobuf import duration_pb2

from tests.broker.contract.conftest import World


def test_a_created_topic_can_be_got_and_listed(pubsub: World) -> None:
    topic = pubsub.topic("mail", labels={"team": "a"})
    found = pubsub.publisher.get_topic(topic=topic)
    assert (found.name, dict(found.labels)) == (topic, {"team": "a"})
    listed = pubsub.publisher.list_topics(project=f"projects/{pubsub.project}")
    assert [each.name for each in listed] == [topic]


def test_a_topic_is_created_once(pubsub: World) -> None:
    topic = pubsub.topic()
    with pytest.raises(errors.AlreadyExists):
        pubsub.publisher.create_topic(name=topic)


def test_a_deleted_topic_is_gone(pubsub: World) -> None:
    topic = pubsub.topic()
    pubsub.publisher.delete_topic(topic=topic)
    for method in (pubsub.publisher.get_topic, pubsub.publisher.delete_topic):
        with pytest.raises(errors.NotFound):
            method(topic=topic)
    with pytest.raises(errors.NotFound):
        pubsub.publish(topic, b"data")
    pubsub.publisher.create_topic(name=topic)


def test_the_subscription_of_a_deleted_topic_says_so_and_keeps_its_messages(pubsub: World) -> None:
    topic, subscription = pubsub.pair()
    pubsub.publish(topic, b"kept")
    pubsub.publisher.delete_topic(topic=topic)
    assert pubsub.subscriber.get_subscription(subscription=subscription).topic == "_deleted-topic_"
    assert pubsub.pulled(subscription)[0].data == b"kept"


def test_a_new_topic_of_the_same_name_does_not_adopt_subscriptions(pubsub: World) -> None:
    topic, _ = pubsub.pair()
    pubsub.publisher.delete_topic(topic=topic)
    pubsub.publisher.create_topic(name=topic)
    assert list(pubsub.publisher.list_topic_subscriptions(topic=topic)) == []


@pytest.mark.parametrize(
    "name",
    ["projects/p/topics/a", "projects/p/topics/1abc", "projects/p/topics/a b c", "projects/p/subscriptions/abc", "abc"],
)
def test_names_are_checked(pubsub: World, name: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        pubsub.publisher.create_topic(name=name)


def test_names_that_google_reserves_are_refused(pubsub: World) -> None:
    with pytest.raises(errors.InvalidArgument):
        pubsub.publisher.create_topic(name="projects/p/topics/google-topic")


def test_lists_come_in_pages(pubsub: World) -> None:
    names = [pubsub.topic(f"topic-{number}") for number in range(5)]
    pages = pubsub.publisher.list_topics(request={"project": f"projects/{pubsub.project}", "page_size": 2}).pages
    found = [[each.name for each in page.topics] for page in pages]
    assert max(map(len, found)) == 2
    assert sorted(name for each in found for name in each) == names


@pytest.mark.differs("topic labels")
def test_an_update_changes_what_its_mask_names(pubsub: World) -> None:
    topic = pubsub.topic(labels={"team": "a"}, message_retention_duration=duration_pb2.Duration(seconds=3600))
    wanted = {"name": topic, "labels": {"team": "b"}, "message_retention_duration": duration_pb2.Duration(seconds=7200)}
    pubsub.publisher.update_topic(request={"topic": wanted, "update_mask": {"paths": ["labels"]}})
    found = pubsub.publisher.get_topic(topic=topic)
    assert dict(found.labels) == {"team": "b"}
    assert found.message_retention_duration.total_seconds() == 3600


def test_an_update_needs_a_mask_of_known_fields(pubsub: World) -> None:
    topic = pubsub.topic()
    for paths in ([], ["no_such_field"], ["name"]):
        with pytest.raises(errors.InvalidArgument):
            pubsub.publisher.update_topic(request={"topic": {"name": topic}, "update_mask": {"paths": paths}})


def test_a_topic_lists_its_subscriptions(pubsub: World) -> None:
    topic = pubsub.topic()
    names = [pubsub.subscription(topic, f"sub-{number}") for number in range(3)]
    pages = pubsub.publisher.list_topic_subscriptions(request={"topic": topic, "page_size": 2})
    assert sorted(pages) == names


@pytest.mark.parametrize("seconds", [599, 31 * 86_400 + 1])
def test_a_topic_keeps_its_messages_for_ten_minutes_to_31_days(pubsub: World, seconds: int) -> None:
    with pytest.raises(errors.InvalidArgument):
        pubsub.topic(message_retention_duration=duration_pb2.Duration(seconds=seconds))

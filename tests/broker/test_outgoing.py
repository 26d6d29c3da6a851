"""Cutting messages into requests: pure."""

from __future__ import annotations

from collections.abc import Sequence

from i3tasks.broker.outgoing import Outgoing, requests
from i3tasks.exceptions import BrokerError


def done(messages: Sequence[Outgoing], error: BrokerError | None) -> None:
    pass


def message(topic: str = "a", size: int = 10) -> Outgoing:
    return Outgoing(topic, b"x" * size, {}, done)


def test_one_request_per_topic_in_the_order_of_the_messages() -> None:
    messages = [message("a", 1), message("b", 2), message("a", 3), message("b", 4)]

    cut = [(topic, [len(one.data) for one in part]) for topic, part in requests(messages)]

    assert cut == [("a", [1, 3]), ("b", [2, 4])]


def test_at_most_a_thousand_messages() -> None:
    assert [len(part) for _, part in requests([message()] * 2001)] == [1000, 1000, 1]


def test_at_most_nine_megabytes() -> None:
    parts = [part for _, part in requests([message(size=4_000_000)] * 5)]

    assert [len(part) for part in parts] == [2, 2, 1]


def test_a_larger_message_goes_alone() -> None:
    parts = [[len(one.data) for one in part] for _, part in requests([message(), message(size=9_500_000), message()])]

    assert parts == [[10], [9_500_000], [10]]


def test_nothing_makes_no_request() -> None:
    assert list(requests([])) == []


def test_messages_that_share_their_attributes_and_others_are_encoded_as_they_are() -> None:
    from google.pubsub_v1 import types

    from i3tasks.broker.sending import _request

    shared, own = {"encoding": "utf-8", "pub_time": "now"}, {"encoding": "utf-8", "traceparent": "00-1"}
    messages = [Outgoing("a", b"%d" % n, given, done) for n, given in enumerate((shared, shared, own, {}, shared))]
    plain = types.PubsubMessage.pb()

    assert _request("a", messages) == types.PublishRequest.pb()(
        topic="a", messages=[plain(data=one.data, attributes=one.attributes) for one in messages]
    )


def test_requests_of_messages_with_large_attributes_are_cut_as_well() -> None:
    large, small = {"a": "x" * 5_000_000}, {"a": "x"}
    messages = [Outgoing("a", b"x", given, done) for given in (small, large, small, large, large)]

    assert [len(part) for _, part in requests(messages)] == [3, 1, 1]


def test_the_size_is_an_upper_bound_of_the_bytes_in_a_request() -> None:
    from google.pubsub_v1 import types

    one = Outgoing("a", b"x" * 300, {"schlüssel": "wert" * 50, "b": ""}, done)
    request = types.PublishRequest.pb()(messages=[types.PubsubMessage.pb()(data=one.data, attributes=one.attributes)])

    assert request.ByteSize() <= one.size <= request.ByteSize() + 200

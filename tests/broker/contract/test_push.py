"""Push: bodies, headers, answers, back-off, tokens."""

from __future__ import annotations

import base64
import json
import urllib.request
from typing import Any

import pytest
from google.api_core import exceptions as errors
from google.auth import jwt

from tests.broker.contract.conftest import Endpoint, World


def _push_to(endpoint: Endpoint, **fields: Any) -> dict[str, Any]:
    return {"push_endpoint": endpoint.url, **fields}


def test_a_push_wraps_the_message_in_json(pubsub: World) -> None:
    endpoint = pubsub.endpoint()
    topic, subscription = pubsub.pair(push_config=_push_to(endpoint))
    ids = pubsub.publish(topic, b"data", kind="mail")
    push = endpoint.pushes(1)[0]
    assert push.path == "/push?token=1"
    assert push.headers["content-type"].startswith("application/json")
    body = json.loads(push.body)
    message = body["message"]
    assert body["subscription"] == subscription
    assert base64.b64decode(message["data"]) == b"data"
    assert message["attributes"] == {"kind": "mail"}
    assert message["messageId"] == message["message_id"] == ids[0]
    assert message["publishTime"] == message["publish_time"]
    assert "orderingKey" not in message
    assert "deliveryAttempt" not in body


@pytest.mark.parametrize("status", [102, 200, 201, 202, 204])
def test_success_acknowledges(pubsub: World, status: int) -> None:
    endpoint = pubsub.endpoint(status)
    topic, _ = pubsub.pair(push_config=_push_to(endpoint))
    first, second = pubsub.publish(topic, b"first"), pubsub.publish(topic, b"second")
    assert sorted(_ids(endpoint, 2)) == sorted(first + second)
    last = pubsub.publish(topic, b"last")
    assert _ids(endpoint, 1) == last


@pytest.mark.parametrize("status", [301, 400, 404, 429, 500, 503])
def test_anything_else_is_pushed_again(pubsub: World, status: int) -> None:
    endpoint = pubsub.endpoint(status)
    topic, _ = pubsub.pair(push_config=_push_to(endpoint))
    ids = pubsub.publish(topic, b"data")
    assert _ids(endpoint, 2) == ids * 2


def test_pushes_of_a_key_come_one_after_the_other(pubsub: World) -> None:
    endpoint = pubsub.endpoint()
    topic, _ = pubsub.pair(push_config=_push_to(endpoint), enable_message_ordering=True)
    ids = pubsub.publish(topic, *[b"data"] * 20, key="a")
    assert _ids(endpoint, 20) == ids


@pytest.mark.differs("push attempts")
def test_pushes_count_attempts_and_end_in_the_dead_letters(pubsub: World) -> None:
    endpoint = pubsub.endpoint(*[500] * 5)
    letters = pubsub.topic("letters")
    dead = pubsub.subscription(letters, "dead")
    policy = {"dead_letter_topic": letters, "max_delivery_attempts": 5}
    topic, _ = pubsub.pair(push_config=_push_to(endpoint), dead_letter_policy=policy)
    pubsub.publish(topic, b"data")
    attempts = [json.loads(push.body)["deliveryAttempt"] for push in endpoint.pushes(5)]
    assert attempts == [1, 2, 3, 4, 5]
    assert pubsub.pulled(dead)[0].data == b"data"


def test_an_unwrapped_push_has_the_data_for_its_body(pubsub: World) -> None:
    endpoint = pubsub.endpoint()
    config = _push_to(endpoint, no_wrapper={"write_metadata": True})
    topic, subscription = pubsub.pair(push_config=config, enable_message_ordering=True)
    ids = pubsub.publish(topic, b"\x00data", key="k", **{"X-Kind": "mail"})
    push = endpoint.pushes(1)[0]
    assert push.body == b"\x00data"
    assert push.headers["x-kind"] == "mail"
    assert push.headers["x-goog-pubsub-message-id"] == ids[0]
    assert push.headers["x-goog-pubsub-subscription-name"] == subscription
    assert "x-goog-pubsub-publish-time" in push.headers


@pytest.mark.differs("attributes as headers")
def test_attributes_that_are_no_headers_are_left_out(pubsub: World) -> None:
    endpoint = pubsub.endpoint()
    topic, _ = pubsub.pair(push_config=_push_to(endpoint, no_wrapper={"write_metadata": True}))
    evil = {"host": "evil", "content-length": "1", "line": "a\r\nX-Evil: 1", "sp ace": "x"}
    pubsub.publish(topic, b"data", **evil)
    push = endpoint.pushes(1)[0]
    assert push.body == b"data"
    assert push.headers["host"] != "evil"
    assert not {"line", "x-evil", "sp ace"} & set(push.headers)


def test_an_unwrapped_push_has_no_metadata_unless_asked_for(pubsub: World) -> None:
    endpoint = pubsub.endpoint()
    topic, _ = pubsub.pair(push_config=_push_to(endpoint, no_wrapper={}))
    pubsub.publish(topic, b"data", **{"X-Kind": "mail"})
    push = endpoint.pushes(1)[0]
    assert push.body == b"data"
    assert not {"x-kind", "x-goog-pubsub-message-id"} & set(push.headers)


@pytest.mark.differs("push tokens")
@pytest.mark.parametrize("audience", ["", "our-audience"])
def test_a_push_carries_a_signed_token(pubsub: World, emulator: Any, audience: str) -> None:
    endpoint = pubsub.endpoint()
    token = {"service_account_email": "pusher@project.iam.gserviceaccount.com", "audience": audience}
    topic, _ = pubsub.pair(push_config=_push_to(endpoint, oidc_token=token))
    pubsub.publish(topic, b"data")
    scheme, _, value = endpoint.pushes(1)[0].headers["authorization"].partition(" ")
    assert scheme == "Bearer"
    with urllib.request.urlopen(emulator.certificates_url) as answer:
        certificates = json.load(answer)
    claims = jwt.decode(value, certs=certificates, audience=audience or endpoint.url)
    assert claims["email"] == "pusher@project.iam.gserviceaccount.com"
    assert claims["email_verified"] is True
    assert claims["iss"] == "https://accounts.google.com"


def test_push_and_pull_can_be_swapped(pubsub: World) -> None:
    endpoint = pubsub.endpoint()
    topic, subscription = pubsub.pair()
    pubsub.publish(topic, b"1")
    pubsub.subscriber.modify_push_config(subscription=subscription, push_config=_push_to(endpoint))
    first = endpoint.pushes(1)[0]
    assert base64.b64decode(json.loads(first.body)["message"]["data"]) == b"1"
    pubsub.subscriber.modify_push_config(subscription=subscription, push_config={})
    pubsub.publish(topic, b"2")
    got = pubsub.pulled(subscription, ack=True)[0]
    if got.data == b"1":  # the swap came between the endpoint's answer and what it acknowledges
        got = pubsub.pulled(subscription, ack=True)[0]
    assert got.data == b"2"


@pytest.mark.differs("pulling from push")
def test_a_push_subscription_can_not_be_pulled_from(pubsub: World) -> None:
    _, subscription = pubsub.pair(push_config=_push_to(pubsub.endpoint()))
    with pytest.raises(errors.FailedPrecondition):
        pubsub.pull(subscription)


def test_a_missing_endpoint_gets_the_message_when_it_is_back(pubsub: World) -> None:
    gone = pubsub.endpoint()
    gone.close()
    topic, subscription = pubsub.pair(push_config=_push_to(gone))
    pubsub.publish(topic, b"data")
    endpoint = pubsub.endpoint()
    pubsub.subscriber.modify_push_config(subscription=subscription, push_config=_push_to(endpoint))
    assert base64.b64decode(json.loads(endpoint.pushes(1)[0].body)["message"]["data"]) == b"data"


def _ids(endpoint: Endpoint, count: int) -> list[str]:
    return [json.loads(push.body)["message"]["messageId"] for push in endpoint.pushes(count)]

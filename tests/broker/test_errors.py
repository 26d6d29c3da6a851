"""Google's errors become sentences that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.api_core import exceptions as api
from google.auth import exceptions as auth

from i3tasks.broker.errors import BrokerInvalid, BrokerMissing, BrokerUnavailable, Doing, translate
from i3tasks.conf import PubSubConfig
from i3tasks.exceptions import BrokerError

EMULATOR = PubSubConfig(True, "127.0.0.1:8085", "test", None)
SERVICE = PubSubConfig(False, None, "shop-1", None)
WITH_KEY = PubSubConfig(False, None, "shop-1", "/keys/shop.json")
TOPIC = "projects/shop-1/topics/shop.default"

make: Any = api  # the library's constructors are untyped


@pytest.mark.parametrize(
    ("error", "doing", "config", "kind", "text"),
    [
        (make.NotFound("x"), "publish", SERVICE, BrokerMissing, "i3tasks ensure-pubsub"),
        (make.PermissionDenied("x"), "publish", SERVICE, BrokerError, "roles/pubsub.publisher"),
        (make.PermissionDenied("x"), "subscribe", SERVICE, BrokerError, "roles/pubsub.subscriber"),
        (make.Forbidden("x"), "provision", SERVICE, BrokerError, "roles/pubsub.editor"),
        (make.Unauthenticated("x"), "publish", SERVICE, BrokerError, "application-default login"),
        (make.Unauthenticated("x"), "publish", WITH_KEY, BrokerError, "/keys/shop.json"),
        (auth.DefaultCredentialsError("none found"), "publish", SERVICE, BrokerUnavailable, "none found"),
        (make.InvalidArgument("too odd"), "publish", SERVICE, BrokerInvalid, "too odd"),
        (make.ResourceExhausted("x"), "publish", SERVICE, BrokerUnavailable, "quota"),
        (make.ServiceUnavailable("x"), "publish", EMULATOR, BrokerUnavailable, "i3tasks emulator"),
        (make.DeadlineExceeded("x"), "publish", SERVICE, BrokerUnavailable, "status.cloud.google.com"),
        (make.Cancelled("x"), "publish", SERVICE, BrokerUnavailable, "no answer"),
        (
            make.RetryError("x", make.ServiceUnavailable("deep down")),
            "publish",
            SERVICE,
            BrokerUnavailable,
            "deep down",
        ),
        (ValueError("Cannot invoke RPC"), "publish", SERVICE, BrokerUnavailable, "Cannot invoke RPC"),
        (make.FailedPrecondition("not so"), "publish", SERVICE, BrokerError, "not so"),
    ],
)
def test_each_kind_of_error(
    error: Exception, doing: Doing, config: PubSubConfig, kind: type[BrokerError], text: str
) -> None:
    translated = translate(error, doing, TOPIC, config)

    assert type(translated) is kind
    assert text in str(translated)
    assert "\n" not in str(translated)


def test_a_broker_error_stays_itself() -> None:
    error = BrokerMissing("as it is")

    assert translate(error, "publish", TOPIC, SERVICE) is error


def test_a_long_text_is_cut() -> None:
    assert len(str(translate(make.Unknown("x" * 10_000), "publish", TOPIC, SERVICE))) < 1000


@pytest.mark.parametrize("part", [BrokerUnavailable, BrokerMissing, BrokerInvalid])
def test_each_has_a_message_of_its_own(part: Callable[[], BrokerError]) -> None:
    assert str(part())

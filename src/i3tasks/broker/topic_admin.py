"""Reading, making and changing topics and subscriptions: the part of provisioning that talks to Google's library."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from google.pubsub_v1 import types

from ..conf import PubSubConfig
from ..exceptions import BrokerError
from . import clients
from .clients import api
from .errors import translate
from .subscriptions import SubscriptionSettings

_PATIENCE = clients.patience(5, each=10)
_DEFAULT_EXPIRATION_SECONDS = 31 * 86_400.0

_MASKS = {
    "push_endpoint": "push_config",
    "push_token": "push_config",
    "ack_deadline_seconds": "ack_deadline_seconds",
    "message_retention_seconds": "message_retention_duration",
    "expires_after_seconds": "expiration_policy",
    "retry_backoff_seconds": "retry_policy",
    "dead_letter": "dead_letter_policy",
}
"""Field of `SubscriptionSettings` -> its path in an update mask of Pub/Sub."""

_Subscription: Any = types.Subscription.pb()  # plain protobuf: an unset field differs from an empty one


class Admin:
    """Two short-lived clients. With `dry_run`, a method that would change something answers as if it had."""

    def __init__(self, config: PubSubConfig, *, dry_run: bool) -> None:
        self._config = config
        self._dry_run = dry_run
        try:
            self._publisher, self._subscriber = clients.make_admin(config)
        except Exception as error:
            raise translate(error, "provision", "topics and subscriptions", config) from error

    def close(self) -> None:
        """Close the connections."""
        clients.close(self._publisher)
        clients.close(self._subscriber)

    def has_topic(self, name: str) -> bool:
        """Tell whether the topic exists."""
        return self._unless(api.NotFound, name, self._publisher.get_topic, topic=name) is not None

    def create_topic(self, name: str) -> bool:
        """Create the topic. Returns False if another process has just created it."""
        return self._create(name, self._publisher.create_topic, types.Topic(name=name))

    def read_subscription(self, name: str) -> SubscriptionSettings | None:
        """Read the subscription's settings. Returns None if there is no such subscription."""
        found = self._read(name)
        return None if found is None else _from_protobuf(found)

    def create_subscription(self, name: str, wanted: SubscriptionSettings) -> bool:
        """Create the subscription. Returns False if another process has just created it."""
        return self._create(name, self._subscriber.create_subscription, _to_protobuf(name, wanted))

    def update_subscription(self, name: str, wanted: SubscriptionSettings, fields: Iterable[str]) -> None:
        """Change these fields and no others."""
        if self._dry_run:
            return
        paths = sorted({_MASKS[field] for field in fields})
        subscription = _to_protobuf(name, wanted)
        if "push_config" in paths and wanted.push_endpoint is not None:
            # Push settings that I3TASKS does not name, such as a token, were set by hand and are kept.
            found = self._read(name)
            if found is not None:
                push_config = types.Subscription.pb(subscription).push_config
                push_config.CopyFrom(found.push_config)
                _set_push(push_config, wanted)
        request = {"subscription": subscription, "update_mask": {"paths": paths}}
        self._call(name, self._subscriber.update_subscription, request=request)

    def delete_subscription(self, name: str) -> None:
        """Delete the subscription if it still exists."""
        if not self._dry_run:
            self._unless(api.NotFound, name, self._subscriber.delete_subscription, subscription=name)

    def _read(self, name: str) -> Any:
        found = self._unless(api.NotFound, name, self._subscriber.get_subscription, subscription=name)
        return None if found is None else types.Subscription.pb(found)

    def _create(self, name: str, method: Callable[..., Any], request: Any) -> bool:
        return self._dry_run or self._unless(api.AlreadyExists, name, method, request=request) is not None

    def _unless(self, expected: type[Exception], name: str, method: Callable[..., Any], **arguments: Any) -> Any:
        """Call `method` and return its answer, or None if Pub/Sub answers with the `expected` error."""
        try:
            return self._call(name, method, **arguments)
        except BrokerError as error:
            if isinstance(error.__cause__, expected):
                return None
            raise

    def _call(self, name: str, method: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return method(**arguments, **_PATIENCE)
        except Exception as error:
            raise translate(error, "provision", name, self._config) from error


def _from_protobuf(found: Any) -> SubscriptionSettings:
    def seconds(duration: Any) -> float:
        return float(duration.ToTimedelta().total_seconds())

    expires: float | None = _DEFAULT_EXPIRATION_SECONDS
    if found.HasField("expiration_policy"):
        expires = seconds(found.expiration_policy.ttl) or None
    return SubscriptionSettings(
        topic=found.topic,
        push_endpoint=found.push_config.push_endpoint or None,
        push_token=(found.push_config.oidc_token.service_account_email, found.push_config.oidc_token.audience)
        if found.push_config.HasField("oidc_token")
        else None,
        ack_deadline_seconds=found.ack_deadline_seconds,
        message_retention_seconds=seconds(found.message_retention_duration),
        expires_after_seconds=expires,
        retry_backoff_seconds=(seconds(found.retry_policy.minimum_backoff), seconds(found.retry_policy.maximum_backoff))
        if found.HasField("retry_policy")
        else None,
        dead_letter=(found.dead_letter_policy.dead_letter_topic, found.dead_letter_policy.max_delivery_attempts)
        if found.HasField("dead_letter_policy")
        else None,
        filter=found.filter,
        detached=found.detached,
    )


def _to_protobuf(name: str, wanted: SubscriptionSettings) -> Any:
    message = _Subscription(name=name, topic=wanted.topic, ack_deadline_seconds=wanted.ack_deadline_seconds)
    message.message_retention_duration.FromTimedelta(timedelta(seconds=wanted.message_retention_seconds))
    message.expiration_policy.SetInParent()  # a policy without a time to live: the subscription never expires
    _set_push(message.push_config, wanted)
    if wanted.retry_backoff_seconds is not None:
        minimum, maximum = wanted.retry_backoff_seconds
        message.retry_policy.minimum_backoff.FromTimedelta(timedelta(seconds=minimum))
        message.retry_policy.maximum_backoff.FromTimedelta(timedelta(seconds=maximum))
    if wanted.dead_letter is not None:
        message.dead_letter_policy.dead_letter_topic, message.dead_letter_policy.max_delivery_attempts = (
            wanted.dead_letter
        )
    return types.Subscription.wrap(message)


def _set_push(push_config: Any, wanted: SubscriptionSettings) -> None:
    if wanted.push_endpoint is not None:
        push_config.push_endpoint = wanted.push_endpoint
    if wanted.push_token is not None:
        push_config.oidc_token.service_account_email, push_config.oidc_token.audience = wanted.push_token

"""Configurations of topics and subscriptions: fills in defaults, checks limits, applies update masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from urllib.parse import urlsplit

from google.protobuf.field_mask_pb2 import FieldMask

from . import filters, wire
from .messages import Rules
from .names import subscription_name, topic_name
from .status_errors import invalid, unimplemented, wrong_state

_MINUTE, _DAY = 60.0, 86_400.0
_MIN_RETENTION, _MAX_RETENTION = 10 * _MINUTE, 31 * _DAY
TOPIC_MUTABLE = frozenset(("labels", "message_retention_duration", "message_storage_policy", "kms_key_name"))
SUBSCRIPTION_MUTABLE = frozenset(
    (
        "ack_deadline_seconds",
        "dead_letter_policy",
        "enable_exactly_once_delivery",
        "expiration_policy",
        "labels",
        "message_retention_duration",
        "push_config",
        "retain_acked_messages",
        "retry_policy",
    )
)
_TOPIC_ELSEWHERE = ("schema_settings", "ingestion_data_source_settings", "message_transforms")
_SUBSCRIPTION_ELSEWHERE = ("bigquery_config", "cloud_storage_config", "bigtable_config", "message_transforms")
_INPUT_ONLY = ("tags",)
_OUTPUT_ONLY = ("analytics_hub_subscription_info", "topic_message_retention_duration")


# -- topics


def new_topic(request: wire.Message) -> wire.Message:
    """Make the topic that a CreateTopic request asks for."""
    topic = wire.Topic()
    topic.CopyFrom(request)
    topic_name(topic.name)
    return _checked_topic(topic)


def updated_topic(topic: wire.Message, request: wire.Message) -> wire.Message:
    """The topic after an UpdateTopic request."""
    return _checked_topic(_merged(topic, request.topic, request.update_mask, TOPIC_MUTABLE))


def topic_retention(topic: wire.Message) -> float:
    """Seconds for which the topic keeps its messages for subscriptions to seek to; 0 if it keeps none."""
    return _seconds(topic.message_retention_duration)


def _checked_topic(topic: wire.Message) -> wire.Message:
    _refuse_elsewhere(topic, _TOPIC_ELSEWHERE)
    _check_labels(topic.labels)
    if topic.HasField("message_retention_duration"):
        _check_retention(topic_retention(topic))
    _drop(topic, _INPUT_ONLY)
    topic.state = wire.Topic.ACTIVE
    return topic


# -- subscriptions


def new_subscription(request: wire.Message) -> wire.Message:
    """Make the subscription that a CreateSubscription request asks for."""
    subscription = wire.Subscription()
    subscription.CopyFrom(request)
    subscription_name(subscription.name)
    topic_name(subscription.topic)
    subscription.detached = False
    filters.parse(subscription.filter)
    return _checked_subscription(subscription)


def updated_subscription(subscription: wire.Message, request: wire.Message) -> wire.Message:
    """The subscription after an UpdateSubscription request."""
    merged = _merged(subscription, request.subscription, request.update_mask, SUBSCRIPTION_MUTABLE)
    return _checked_subscription(merged)


def with_push_config(subscription: wire.Message, push_config: wire.Message) -> wire.Message:
    """The subscription after a ModifyPushConfig request; an empty config makes it a pull subscription."""
    changed = wire.Subscription()
    changed.CopyFrom(subscription)
    changed.push_config.CopyFrom(push_config)
    return _checked_subscription(changed)


def expiration(subscription: wire.Message) -> float | None:
    """Seconds of inactivity after which the subscription is deleted; None for never."""
    return _seconds(subscription.expiration_policy.ttl) or None


def rules(subscription: wire.Message, *, dead_letters: bool) -> Rules:
    """The rules of delivery. `dead_letters` tells whether the dead-letter topic exists."""
    policy = subscription.dead_letter_policy
    return Rules(
        ack_deadline=subscription.ack_deadline_seconds,
        ordered=subscription.enable_message_ordering,
        exactly_once=subscription.enable_exactly_once_delivery,
        one_per_key=is_push(subscription),
        minimum_backoff=_seconds(subscription.retry_policy.minimum_backoff),
        maximum_backoff=_seconds(subscription.retry_policy.maximum_backoff),
        max_attempts=policy.max_delivery_attempts if dead_letters else 0,
        retain_acked=subscription.retain_acked_messages,
        retention=_seconds(subscription.message_retention_duration),
    )


def is_push(subscription: wire.Message) -> bool:
    """Tell whether this is a push subscription: the emulator sends the messages and does not wait for pull requests."""
    return bool(subscription.push_config.push_endpoint)


def _checked_subscription(subscription: wire.Message) -> wire.Message:
    _refuse_elsewhere(subscription, _SUBSCRIPTION_ELSEWHERE)
    _check_labels(subscription.labels)
    _check_deadline(subscription)
    _check_expiration(subscription)
    _check_retry_policy(subscription)
    _check_dead_letter_policy(subscription)
    _check_push_config(subscription)
    if not subscription.HasField("message_retention_duration"):
        subscription.message_retention_duration.FromSeconds(int(7 * _DAY))
    _check_retention(_seconds(subscription.message_retention_duration))
    _drop(subscription, _INPUT_ONLY + _OUTPUT_ONLY)
    subscription.state = wire.Subscription.ACTIVE
    return subscription


def _check_deadline(subscription: wire.Message) -> None:
    subscription.ack_deadline_seconds = subscription.ack_deadline_seconds or 10
    _check_range("ack_deadline_seconds", subscription.ack_deadline_seconds, 10, 600)


def _check_expiration(subscription: wire.Message) -> None:
    if not subscription.HasField("expiration_policy"):
        subscription.expiration_policy.ttl.FromSeconds(int(31 * _DAY))
    if subscription.expiration_policy.HasField("ttl"):
        ttl = _seconds(subscription.expiration_policy.ttl)
        _check_range("expiration_policy.ttl", ttl, _DAY, 3_650_000 * _DAY)


def _check_retry_policy(subscription: wire.Message) -> None:
    if not subscription.HasField("retry_policy"):
        return
    policy = subscription.retry_policy
    if not policy.HasField("minimum_backoff"):
        policy.minimum_backoff.FromSeconds(10)
    if not policy.HasField("maximum_backoff"):
        policy.maximum_backoff.FromSeconds(600)
    minimum, maximum = _seconds(policy.minimum_backoff), _seconds(policy.maximum_backoff)
    _check_range("retry_policy.minimum_backoff", minimum, 0, 600)
    _check_range("retry_policy.maximum_backoff", maximum, minimum, 600)


def _check_dead_letter_policy(subscription: wire.Message) -> None:
    if not subscription.HasField("dead_letter_policy"):
        return
    policy = subscription.dead_letter_policy
    topic_name(policy.dead_letter_topic)
    policy.max_delivery_attempts = policy.max_delivery_attempts or 5
    _check_range("dead_letter_policy.max_delivery_attempts", policy.max_delivery_attempts, 5, 100)


def _check_push_config(subscription: wire.Message) -> None:
    config = subscription.push_config
    if not config.push_endpoint:
        subscription.ClearField("push_config")
        return
    try:
        url = urlsplit(config.push_endpoint)
        port = url.port
    except ValueError:
        url, port = urlsplit(""), None
    if url.scheme not in ("http", "https") or not url.hostname or port == 0:
        raise invalid(f"Invalid push_endpoint {config.push_endpoint[:300]!r}: it must be an http or https URL.")
    if config.attributes.setdefault("x-goog-version", "v1") not in ("v1", "v1beta2"):
        raise unimplemented("The emulator pushes in the format of x-goog-version v1 only.")
    if subscription.enable_exactly_once_delivery:
        raise invalid("A push subscription can't have enable_exactly_once_delivery: only pull subscriptions can.")
    if config.HasField("oidc_token"):
        _check_token(config.oidc_token)


def _check_token(token: wire.Message) -> None:
    if not token.service_account_email:
        raise invalid("push_config.oidc_token needs a service_account_email.")
    if find_spec("cryptography") is None:  # old releases of google-auth do without it
        raise wrong_state("The emulator signs tokens with the cryptography package. Install it.")


# -- shared


def _merged(current: wire.Message, wanted: wire.Message, mask: FieldMask, mutable: frozenset[str]) -> wire.Message:
    if not mask.paths:
        raise invalid("The update_mask must be specified, and must not be empty.")
    for path in mask.paths:
        field = path.split(".", 1)[0]
        if field not in mutable or not FieldMask(paths=[path]).IsValidForDescriptor(current.DESCRIPTOR):
            raise invalid(f"Invalid update_mask: {path[:100]!r} can't be changed. Choose from {sorted(mutable)}.")
    merged = type(current)()
    merged.CopyFrom(current)
    mask.MergeMessage(wanted, merged, replace_message_field=True, replace_repeated_field=True)
    return merged


def _refuse_elsewhere(message: wire.Message, fields: Iterable[str]) -> None:
    for descriptor, _ in message.ListFields():
        if descriptor.name in fields:
            raise unimplemented(f"The emulator does not implement {descriptor.name}.")


def _drop(message: wire.Message, fields: Iterable[str]) -> None:
    """Clear these fields. Older releases of the client library don't have all of them."""
    for descriptor, _ in message.ListFields():
        if descriptor.name in fields:
            message.ClearField(descriptor.name)


def _check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > 64:
        raise invalid("A resource can't have more than 64 labels.")
    if any(not 0 < len(key) <= 63 or len(value) > 63 for key, value in labels.items()):
        raise invalid("Label keys must have 1 to 63 characters, label values at most 63.")


def _check_retention(seconds: float) -> None:
    _check_range("message_retention_duration", seconds, _MIN_RETENTION, _MAX_RETENTION)


def _check_range(field: str, value: float, minimum: float, maximum: float) -> None:
    if not minimum <= value <= maximum:
        raise invalid(f"Invalid {field}: {value:g} is not between {minimum:g} and {maximum:g} seconds or attempts.")


def _seconds(duration: wire.Message) -> float:
    return float(duration.seconds + duration.nanos / 1e9)

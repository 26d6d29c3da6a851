"""The content of a push request: a message wrapped in JSON, or its bare data with the metadata in headers."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from .. import wire
from ..messages import LeasedMessage
from ..subscription import Subscription

ACKNOWLEDGED = frozenset((102, 200, 201, 202, 204))
"""The documented status codes that acknowledge a push."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PRINTABLE = re.compile(r"[\x20-\x7e\t]*")
_PREFIX = "x-goog-pubsub-"
_OURS = frozenset(
    (
        "accept",
        "authorization",
        "connection",
        "content-length",
        "expect",
        "host",
        "te",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    )
)


def render(subscription: Subscription, delivery: LeasedMessage) -> tuple[dict[str, str], bytes]:
    """Make the headers and the body of the request that pushes the delivery."""
    message = wire.PubsubMessage.FromString(delivery.message.payload)
    attempt = delivery.attempt if subscription.counts_attempts else 0
    headers = {"User-Agent": "CloudPubSub-Google", "Accept": "*/*"}
    config = subscription.config.push_config
    if not config.HasField("no_wrapper"):
        body = json.dumps(_wrapped(subscription.name, message, attempt), ensure_ascii=False).encode()
        return headers | {"Content-Type": "application/json"}, body
    if config.no_wrapper.write_metadata:
        headers |= _metadata(subscription.name, message, attempt)
    return headers, message.data


def _wrapped(subscription: str, message: wire.Message, attempt: int) -> dict[str, Any]:
    """Make the JSON of a push. The id and the time are there in both spellings, as in the real service."""
    publish_time = message.publish_time.ToJsonString()
    shown: dict[str, Any] = {
        "attributes": dict(message.attributes),
        "data": base64.b64encode(message.data).decode(),
        "messageId": message.message_id,
        "message_id": message.message_id,
        "publishTime": publish_time,
        "publish_time": publish_time,
    }
    if message.ordering_key:
        shown["orderingKey"] = message.ordering_key
    attempts = {"deliveryAttempt": attempt} if attempt else {}
    return {"message": shown, "subscription": subscription, **attempts}


def _metadata(subscription: str, message: wire.Message, attempt: int) -> dict[str, str]:
    fields = {
        "subscription-name": subscription,
        "message-id": message.message_id,
        "publish-time": message.publish_time.ToJsonString(),
        "ordering-key": message.ordering_key,
        "delivery-attempt": str(attempt or ""),
    }
    headers = {key: value for key, value in message.attributes.items() if _fits_header(key, value)}
    return headers | {
        f"{_PREFIX}{key}": value for key, value in fields.items() if _PRINTABLE.fullmatch(value) and value
    }


def _fits_header(key: str, value: str) -> bool:
    """Tell whether an attribute may become a header.

    An attribute with a line break could change the whole request, and one named like a header of ours would double it.
    """
    name = key.lower().replace("_", "-")  # web servers treat "_" and "-" alike, as they do upper and lower case
    allowed = _TOKEN.fullmatch(key) is not None and name not in _OURS and not name.startswith(_PREFIX)
    return allowed and _PRINTABLE.fullmatch(value) is not None

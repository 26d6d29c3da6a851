"""One Publish request, on Google's generated client: the part of the publisher that talks to Google's library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.pubsub_v1 import types

from ..conf import PubSubConfig
from . import clients
from .errors import translate
from .outgoing import Outgoing

# Repeats cover an outage of some seconds. After a longer one the dispatcher publishes the rows.
_PATIENT = clients.patience(5)
_QUICK = clients.patience(0)

# The proto-plus wrappers cost more time than the request itself, so the plain protobuf classes are used. To encode
# attributes takes three times as long as all the rest of a message: most messages of a request have the same ones.
_Request: Any = types.PublishRequest.pb()
_Message: Any = types.PubsubMessage.pb()


class Sender:
    """The client that publishes. One thread makes, uses and closes it."""

    def __init__(self, config: PubSubConfig) -> None:
        self._config = config
        try:
            self._client = clients.make_publisher(config)
        except Exception as error:
            raise translate(error, "publish", "messages", config) from error

    def send(self, topic: str, messages: Sequence[Outgoing], *, patient: bool) -> None:
        """Publish `messages` of one topic in one request; if `patient`, repeat it for about 5 s. Raises BrokerError."""
        request = types.PublishRequest.wrap(_request(topic, messages))
        try:
            self._client.publish(request=request, **(_PATIENT if patient else _QUICK))
        except Exception as error:
            raise translate(error, "publish", topic, self._config) from error

    def close(self) -> None:
        """Close the connection."""
        clients.close(self._client)


def _request(topic: str, messages: Sequence[Outgoing]) -> Any:
    request = _Request(topic=topic)
    attributes: Mapping[str, str] | None = None
    encoded = b""
    for message in messages:
        if message.attributes is not attributes:
            attributes = message.attributes
            encoded = _Message(attributes=attributes).SerializeToString()
        request.messages.add(data=message.data).MergeFromString(encoded)
    return request

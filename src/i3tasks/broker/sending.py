"""One Publish request, on Google's generated client: the part of the publisher that talks to Google's library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.pubsub_v1 import types

from ..conf import PubSubConfig
from . import clients
from .errors import translate
from .outgoing import Outgoing

# Repeats cover an outage of some seconds. After a longer one the dispatcher publishes the rows.
_PATIENT = clients.patience(5)
_QUICK = clients.patience(0)

# The proto-plus wrappers cost more time than the request itself, so the plain protobuf classes are used.
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
        request = _Request(
            topic=topic,
            messages=[_Message(data=message.data, attributes=message.attributes) for message in messages],
        )
        try:
            self._client.publish(request=types.PublishRequest.wrap(request), **(_PATIENT if patient else _QUICK))
        except Exception as error:
            raise translate(error, "publish", topic, self._config) from error

    def close(self) -> None:
        """Close the connection."""
        clients.close(self._client)

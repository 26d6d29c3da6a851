"""Messages for the publisher, and the rules by which they are split into requests. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from ..exceptions import BrokerError

MAXIMUM_MESSAGE_BYTES = 10_000_000
_MAXIMUM_REQUEST_BYTES = 9_000_000
_MAXIMUM_REQUEST_MESSAGES = 1000
_FIELD_OVERHEAD = 16  # more than protobuf spends on a field's tag and lengths


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message for the broker."""

    topic: str
    """Full name: projects/P/topics/T."""
    data: bytes
    attributes: Mapping[str, str]
    on_done: Callable[[BrokerError | None], None]
    """Callback, called once in the publisher's thread: with None if Pub/Sub confirmed the message, else with the
    error. It must be quick."""

    @property
    def size(self) -> int:
        """An upper bound of the bytes that the message takes in a request."""
        attributes = sum(
            len(key.encode()) + len(value.encode()) + 2 * _FIELD_OVERHEAD for key, value in self.attributes.items()
        )
        return len(self.data) + attributes + 2 * _FIELD_OVERHEAD


MakeMessage = Callable[[], Outgoing]
"""Makes a message when it is about to be sent."""


def requests(messages: Iterable[Outgoing]) -> Iterator[tuple[str, list[Outgoing]]]:
    """Split `messages` into (topic, messages) of at most 1000 messages and 9 MB, keeping each topic's order.

    A larger message makes a request of its own.
    """
    ordered = sorted(messages, key=_topic)  # a stable sort
    for topic, group in groupby(ordered, key=_topic):
        chunk: list[Outgoing] = []
        room = _MAXIMUM_REQUEST_BYTES
        for message in group:
            size = message.size
            if chunk and (size > room or len(chunk) == _MAXIMUM_REQUEST_MESSAGES):
                yield topic, chunk
                chunk, room = [], _MAXIMUM_REQUEST_BYTES
            chunk.append(message)
            room -= size
        yield topic, chunk


def _topic(message: Outgoing) -> str:
    return message.topic

"""Messages for the publisher, and the rules by which they are split into requests. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from ..core.record import record
from ..exceptions import BrokerError

MAXIMUM_MESSAGE_BYTES = 10_000_000
_MAXIMUM_REQUEST_BYTES = 9_000_000
_MAXIMUM_REQUEST_MESSAGES = 1000
_FIELD_OVERHEAD = 16  # more than protobuf spends on a field's tag and lengths


@record
class Outgoing:
    """One message for the broker."""

    topic: str
    """Full name: projects/P/topics/T."""
    data: bytes
    attributes: Mapping[str, str]
    """Messages that have the same object are sent faster."""
    on_done: Callable[[Sequence[Outgoing], BrokerError | None], None]
    """Callback, called once for each message in the publisher's thread: with None if Pub/Sub confirmed it, else with
    the error. Messages that stand side by side in a request and have the same callback share a call. It must be
    quick."""
    about: Any = None
    """Whatever `on_done` needs to know of the message."""

    @property
    def size(self) -> int:
        """An upper bound of the bytes that the message takes in a request."""
        return len(self.data) + _size_of(self.attributes)


MakeMessage = Callable[[], Outgoing]
"""Makes a message when it is about to be sent."""


def requests(messages: Iterable[Outgoing]) -> Iterator[tuple[str, list[Outgoing]]]:
    """Split `messages` into (topic, messages) of at most 1000 messages and 9 MB, keeping each topic's order.

    A larger message makes a request of its own.
    """
    ordered = sorted(messages, key=_topic)  # a stable sort
    attributes: Mapping[str, str] | None = None
    size_of_attributes = 0
    for topic, group in groupby(ordered, key=_topic):
        chunk: list[Outgoing] = []
        room = _MAXIMUM_REQUEST_BYTES
        for message in group:
            if message.attributes is not attributes:
                attributes = message.attributes
                size_of_attributes = _size_of(attributes)
            size = len(message.data) + size_of_attributes
            if chunk and (size > room or len(chunk) == _MAXIMUM_REQUEST_MESSAGES):
                yield topic, chunk
                chunk, room = [], _MAXIMUM_REQUEST_BYTES
            chunk.append(message)
            room -= size
        yield topic, chunk


_topic = attrgetter("topic")


def _size_of(attributes: Mapping[str, str]) -> int:
    """The most bytes that a message takes beside its data."""
    each = (len(key.encode()) + len(value.encode()) + 2 * _FIELD_OVERHEAD for key, value in attributes.items())
    return sum(each) + 2 * _FIELD_OVERHEAD

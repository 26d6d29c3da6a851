"""Deliveries and the two places that hold them: `Inbox` until the loop takes them, `Outstanding` until an answer.

Both are used from the event loop, from the library's threads, and from the threads that answer messages.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(slots=True)
class Delivery:
    """A message as the engine sees it, by pull or by push."""

    data: bytes
    attributes: Mapping[str, str]
    message_id: str
    publish_time: datetime
    """Time at which Pub/Sub took the message: aware, in UTC."""
    delivery_attempt: int | None
    """Number of the delivery, which Pub/Sub counts on subscriptions with a dead-letter topic; otherwise None."""
    queue_name: str


class Incoming:
    """A delivery and the way to answer it. Any thread may answer; only the first answer counts; answers never raise."""

    __slots__ = ("_message", "_outstanding", "delivery")

    def __init__(self, delivery: Delivery, message: Any, outstanding: Outstanding) -> None:
        self.delivery = delivery
        self._message = message
        self._outstanding = outstanding
        outstanding.take(self)

    def ack(self) -> None:
        """Tell Pub/Sub not to deliver the message again."""
        self._outstanding.answer(self, self._message.ack)

    def nack(self) -> None:
        """Ask Pub/Sub to deliver the message again, after the subscription's backoff."""
        self._outstanding.answer(self, self._message.nack)


class Outstanding:
    """The delivered messages that have no answer yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[int] = set()
        self._held = 0
        self._emptied: Callable[[], None] | None = None

    def __len__(self) -> int:
        return self._held

    def take(self, incoming: Incoming) -> None:
        with self._lock:
            self._open.add(id(incoming))
            self._held += 1

    def answer(self, incoming: Incoming, send: Callable[[], None]) -> None:
        """Call `send` for the first answer. It is counted after it was sent, so that no drain ends before."""
        with self._lock:
            if id(incoming) not in self._open:
                return
            self._open.discard(id(incoming))
        try:
            send()  # only puts the answer on a queue
        finally:
            with self._lock:
                self._held -= 1
                emptied = None if self._held else self._emptied
            if emptied is not None:
                emptied()

    def when_empty(self, emptied: Callable[[], None]) -> None:
        """Call `emptied` when the last message is answered, in the answering thread; at once if none is held."""
        with self._lock:
            self._emptied = emptied
            held = self._held
        if not held:
            emptied()


class Inbox:
    """Messages from the library's threads. One call of `wake` covers all messages that come before `empty`."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._messages: list[Any] = []
        self._wake = wake

    def put(self, message: Any) -> None:
        """Add a message. Never blocks, and raises only what `wake` raises."""
        with self._lock:
            self._messages.append(message)
            first = len(self._messages) == 1
        if first:
            self._wake()

    def empty(self) -> list[Any]:
        """Take out all messages."""
        with self._lock:
            messages, self._messages = self._messages, []
        return messages

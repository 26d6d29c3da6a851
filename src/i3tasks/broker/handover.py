"""The two places where a message waits: the inbox, on its way to the loop, and the hand, while it is worked on.

Both are touched by the loop, by library threads and by whoever answers a message; neither knows any of them.
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
    """Aware, in UTC."""
    delivery_attempt: int | None
    """Counted by Pub/Sub on subscriptions with a dead-letter topic; else None."""
    queue_name: str


class Incoming:
    """A delivery and the way to answer it. From any thread; only the first answer counts; never raises."""

    __slots__ = ("_hand", "_message", "delivery")

    def __init__(self, delivery: Delivery, message: Any, hand: Hand) -> None:
        self.delivery = delivery
        self._message = message
        self._hand = hand
        hand.take(self)

    def ack(self) -> None:
        """The message is done with."""
        self._hand.answer(self, self._message.ack)

    def nack(self) -> None:
        """Deliver it again, after the subscription's backoff."""
        self._hand.answer(self, self._message.nack)


class Hand:
    """The messages that were delivered and are not yet answered."""

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
        """`send` the first answer. It is counted after it was sent, or a drain might end between the two."""
        with self._lock:
            if id(incoming) not in self._open:
                return
            self._open.discard(id(incoming))
        try:
            send()  # only puts it on a queue
        finally:
            with self._lock:
                self._held -= 1
                emptied = None if self._held else self._emptied
            if emptied is not None:
                emptied()

    def when_empty(self, emptied: Callable[[], None]) -> None:
        """Call `emptied`, in whatever thread, when the last message is answered; now if none is held."""
        with self._lock:
            self._emptied = emptied
            held = self._held
        if not held:
            emptied()


class Inbox:
    """Messages from the library's threads. The loop is woken once, for however many there are by then."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._messages: list[Any] = []
        self._wake = wake

    def put(self, message: Any) -> None:
        """Never blocks, never raises (if `wake` does not)."""
        with self._lock:
            self._messages.append(message)
            first = len(self._messages) == 1
        if first:
            self._wake()

    def empty(self) -> list[Any]:
        """Take out all there is."""
        with self._lock:
            messages, self._messages = self._messages, []
        return messages

"""A Pub/Sub that drops, doubles, delays, reorders and forgets, as its seed says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from i3tasks.broker.deliveries import Delivery
from i3tasks.broker.errors import BrokerUnavailable
from i3tasks.broker.publisher import Outgoing

from .timeline import Timeline

ACK_DEADLINE = 10.0
SLOWEST = 3.0
LONGEST_SILENCE = 60.0
REDELIVERY = 2.0


@dataclass(frozen=True)
class Faults:
    """How likely each thing is to go wrong, each time it might."""

    publish_fails: float = 0.0  # Pub/Sub did not take it, and says so
    publish_unanswered: float = 0.0  # it took it, and the client hears that it did not
    message_lost: float = 0.0  # after it was confirmed
    message_doubled: float = 0.0
    all_forgotten: float = 0.0  # whatever waits, confirmed or not, at each publish
    falls_silent: float = 0.0  # the same: it takes messages, and delivers none for a while
    all_late: float = 0.0  # seconds by which everything is delivered late
    ack_lost: float = 0.0
    process_dies: float = 0.0  # at each step that a process takes
    process_freezes: float = 0.0  # the same; it wakes up when its leases may be over
    process_stops: float = 0.0  # the same; on SIGTERM, with little time to drain
    database_away: float = 0.0  # before a transaction
    reply_lost: float = 0.0  # of a COMMIT
    row_held: float = 0.0  # by a stranger's open transaction, for each request of the store
    loop_blocks: float = 0.0  # by a body, for up to a few leases, at each turn of the loop
    clocks_differ: float = 0.0  # seconds by which a process may be ahead of the database, or behind


DEADLY = ("process_dies", "process_freezes", "process_stops", "database_away", "reply_lost", "row_held", "loop_blocks")
"""Faults by which a try may be lost with its worker, or a heartbeat may be late."""


@dataclass(eq=False)
class Message:
    data: bytes
    attributes: dict[str, str]
    published: datetime
    is_acked: bool = False


@dataclass(eq=False)
class Broker:
    """One topic and its subscription. `receivers` are the processes that listen."""

    timeline: Timeline
    faults: Faults
    receivers: list[Any] = field(default_factory=list)
    open: set[Message] = field(default_factory=set)
    breaches: list[str] = field(default_factory=list)  # of the store's rules; see `watch`
    silent_until: float = 0.0

    def happens(self, probability: float) -> bool:
        return self.timeline.chance.random() < probability

    def publish(self, outgoing: Outgoing, answer: Callable[[Exception | None], None]) -> None:
        """Take a message, or not, and say so, or not."""
        if self.happens(self.faults.publish_fails):
            answer(BrokerUnavailable())
            return
        if self.happens(self.faults.all_forgotten):
            self._forget()
        if self.happens(self.faults.falls_silent):
            self.silent_until = self.timeline.seconds + self.timeline.chance.uniform(1, LONGEST_SILENCE)
        copies = 2 if self.happens(self.faults.message_doubled) else 1
        for _ in range(0 if self.happens(self.faults.message_lost) else copies):
            self._deliver_later(Message(outgoing.data, dict(outgoing.attributes), self.timeline.now))
        answer(BrokerUnavailable() if self.happens(self.faults.publish_unanswered) else None)

    def ack(self, message: Message) -> None:
        if self.happens(self.faults.ack_lost):
            self.timeline.after(ACK_DEADLINE, lambda: self._deliver(message))
        else:
            message.is_acked = True
            self.open.discard(message)

    def nack(self, message: Message) -> None:
        self.timeline.after(REDELIVERY, lambda: self._deliver(message))

    def abandon(self, message: Message) -> None:
        """Its receiver died with it."""
        self.timeline.after(ACK_DEADLINE, lambda: self._deliver(message))

    def _deliver_later(self, message: Message) -> None:
        self.open.add(message)
        delay = self.timeline.chance.random() ** 4 * SLOWEST + self.faults.all_late
        self.timeline.after(delay, lambda: self._deliver(message))

    def _forget(self) -> None:
        for message in self.open:
            message.is_acked = True
        self.open.clear()

    def _deliver(self, message: Message) -> None:
        if message.is_acked:
            return
        silent_for = self.silent_until - self.timeline.seconds
        if not self.receivers or silent_for > 0:
            self.timeline.after(max(silent_for, REDELIVERY), lambda: self._deliver(message))
            return
        delivery = Delivery(message.data, message.attributes, "m", message.published, None, "default")
        self.timeline.chance.choice(self.receivers).receive(message, delivery)

"""What travels between the emulator's parts: a stored message and the terms it is delivered on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """A published message. Ids grow in the order of publishing, also across restarts."""

    id: int
    published_at: float
    payload: bytes  # a serialised google.pubsub.v1.PubsubMessage
    ordering_key: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """A subscription's terms of delivery. Durations are in seconds."""

    ack_deadline: float = 10.0
    ordered: bool = False
    exactly_once: bool = False
    one_per_key: bool = False
    """Push holds one outstanding message per ordering key."""
    minimum_backoff: float = 0.0
    maximum_backoff: float = 0.0
    max_attempts: int = 0
    """Failed deliveries after which a message goes to the dead letter topic; 0 means never."""
    retain_acked: bool = False
    retention: float = 7 * 86_400.0

    def backoff(self, failures: int) -> float:
        """Seconds until a message that failed `failures` times is offered again."""
        doubled = self.minimum_backoff * 2.0 ** min(failures - 1, 32)
        return min(doubled, self.maximum_backoff)


@dataclass(slots=True, eq=False)
class Consumer:
    """A stream, a pull request or a push loop: what it holds, and how much it may hold (0 means any amount)."""

    max_messages: int = 0
    max_bytes: int = 0
    messages: int = 0
    bytes: int = 0

    def has_room(self) -> bool:
        """Whether one more message may be handed over. Bytes stop the message after the one that exceeds them."""
        few_messages = self.max_messages <= 0 or self.messages < self.max_messages
        few_bytes = self.max_bytes <= 0 or self.bytes < self.max_bytes
        return few_messages and few_bytes


class Outcome(Enum):
    """What became of an ack or a deadline. The values are what clients of exactly-once subscriptions are told."""

    DONE = ""
    VOID = "PERMANENT_FAILURE_INVALID_ACK_ID"
    """The lease is over: the message was answered for, or its deadline passed."""
    UNORDERED = "TRANSIENT_FAILURE_UNORDERED_ACK_ID"
    """An earlier message of the key must be acked first."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One handing over of a message."""

    message: Message
    lease: int
    """Names this delivery; no other delivery of the subscription has the same number."""
    attempt: int

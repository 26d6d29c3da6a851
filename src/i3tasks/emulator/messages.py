"""Values that the emulator's parts share: a stored message, the rules of its delivery, consumers and leases."""

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
    """A subscription's rules of delivery. Durations are in seconds."""

    ack_deadline: float = 10.0
    ordered: bool = False
    exactly_once: bool = False
    one_per_key: bool = False
    """Deliver a message only when no other of its ordering key is outstanding, as push does."""
    minimum_backoff: float = 0.0
    maximum_backoff: float = 0.0
    max_attempts: int = 0
    """Number of failed deliveries after which a message goes to the dead-letter topic; 0 means never."""
    retain_acked: bool = False
    retention: float = 7 * 86_400.0

    def backoff(self, failures: int) -> float:
        """Seconds until a message that failed `failures` times is delivered again."""
        doubled = self.minimum_backoff * 2.0 ** min(failures - 1, 32)
        return min(doubled, self.maximum_backoff)


@dataclass(slots=True, eq=False)
class Consumer:
    """A stream, a pull request or a push loop: the messages and bytes that it holds, and the most of each (0: any)."""

    max_messages: int = 0
    max_bytes: int = 0
    messages: int = 0
    bytes: int = 0

    def has_room(self) -> bool:
        """Tell whether the consumer may get one more message. The last one may go over the limit of bytes."""
        few_messages = self.max_messages <= 0 or self.messages < self.max_messages
        few_bytes = self.max_bytes <= 0 or self.bytes < self.max_bytes
        return few_messages and few_bytes


class AckOutcome(Enum):
    """The outcome of an ack or a new deadline. Clients of exactly-once subscriptions receive the value."""

    DONE = ""
    VOID = "PERMANENT_FAILURE_INVALID_ACK_ID"
    """The lease is over: the message was acked or nacked, or its deadline passed."""
    UNORDERED = "TRANSIENT_FAILURE_UNORDERED_ACK_ID"
    """An earlier message of the key must be acked first."""


@dataclass(frozen=True, slots=True)
class LeasedMessage:
    """One delivery of a message to a consumer."""

    message: Message
    lease: int
    """Number of this delivery, unique within the subscription."""
    attempt: int

"""A subscription at work: its backlog, the consumers that wait for messages, and the timer of its next deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from . import ack_ids, configs, filters, wire
from .ack_ids import AckId
from .backlog import Backlog, Changes
from .messages import AckOutcome, Consumer, LeasedMessage, Message, Rules
from .names import last_part
from .status_errors import StatusError, invalid, not_found, wrong_state

RESPONSE_BYTES = 1_000_000
"""Size at which a response is complete, so that streams take turns and clients need no huge buffers."""

Committed = asyncio.Future[None] | None
"""Future that is done when the changes of a call are on disk; None if there were no changes."""

Failures = dict[str, AckOutcome]
"""Outcome of each ack id that had no effect. Only exactly-once subscriptions report these."""

_Answer = Callable[[Backlog, float, int, int], AckOutcome]


class Subscription:
    """A subscription, as the RPCs and the push loop use it.

    `commit` writes changes to disk and returns a future that is done then. All methods run in the event loop.
    """

    def __init__(
        self,
        number: int,
        config: wire.Message,
        backlog: Backlog,
        clock: Callable[[], float],
        commit: Callable[[Subscription, Changes], Committed],
    ) -> None:
        self.number = number
        self.config = config
        self.backlog = backlog
        self.accepts = filters.parse(config.filter)
        self.active_at = clock()
        self.streams = 0  # number of open streams
        self._clock = clock
        self._commit = commit
        self._waiters: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._deleted = False

    @property
    def name(self) -> str:
        """The full name, `projects/P/subscriptions/S`."""
        return str(self.config.name)

    @property
    def counts_attempts(self) -> bool:
        """Tell whether deliveries carry a delivery attempt, as they do with a dead-letter policy."""
        return bool(self.config.HasField("dead_letter_policy"))

    # -- messages

    def add(self, message: Message) -> None:
        """Add a message that was committed."""
        if not self._deleted and not self.config.detached:
            self.backlog.add(message)

    def take(self, consumer: Consumer, limit: int, deadline: float | None = None) -> list[LeasedMessage]:
        """Take messages for the consumer, leased for `deadline` seconds (None: for the subscription's ack deadline)."""
        self.check()
        now = self._clock()
        seconds = self.backlog.rules.ack_deadline if deadline is None else deadline
        deliveries = self.backlog.take(now, consumer, limit, RESPONSE_BYTES, seconds)
        if deliveries:
            self.active_at = now
            self._set_timer()
        if self.backlog.has_changes:  # deadlines passed, so other consumers may have messages to take
            self.flush()
        return deliveries

    def share(self, most: int) -> int:
        """The number of messages that one stream may take at a time, so that all get their part of a small backlog."""
        return max(1, min(most, len(self.backlog) // max(self.streams, 1)))

    def ack_id(self, delivery: LeasedMessage) -> str:
        """Give the ack id of this delivery."""
        return str(AckId(self.number, delivery.message.id, delivery.lease))

    def acknowledge(self, texts: Iterable[str]) -> tuple[Failures, Committed]:
        """Settle deliveries, those of one ordering key in their order. Returns the failures and the commit."""
        read = sorted((_read(text), text) for text in texts)
        return self._answer((text, parts, Backlog.ack) for parts, text in read)

    def modify(self, texts: Iterable[str], seconds: Iterable[int]) -> tuple[Failures, Committed]:
        """Move deadlines, each to its number of seconds from now. Returns the failures and the commit.

        The last messages are handled first: a nack takes back the later messages of its ordering key, and these may be
        nacked in the same call.
        """
        pairs = zip(texts, seconds, strict=True)
        read = [(text, _read(text), _modification(second)) for text, second in pairs]
        return self._answer(sorted(read, key=lambda item: item[1], reverse=True))

    def _answer(self, answers: Iterable[tuple[str, AckId, _Answer]]) -> tuple[Failures, Committed]:
        self.check()
        self.active_at = now = self._clock()
        failures: Failures = {}
        for text, parts, answer in answers:
            known = parts.subscription == self.number
            outcome = answer(self.backlog, now, parts.message, parts.lease) if known else AckOutcome.VOID
            if outcome is not AckOutcome.DONE and self.backlog.rules.exactly_once:
                failures[text] = outcome
        return failures, self.flush()

    def seek(self, instant: float, replayable: Iterable[Message]) -> Committed:
        """Call `Backlog.seek` and write the changes to disk."""
        self.active_at = now = self._clock()
        self.backlog.seek(now, instant, replayable)
        return self.flush()

    def prune(self) -> Committed:
        """Drop messages that are older than the retention."""
        self.backlog.prune(self._clock())
        return self.flush()

    # -- its own life

    def has_expired(self, now: float) -> bool:
        """Tell whether the subscription was unused for longer than its expiration policy allows. Waiting is use."""
        if self._waiters:
            self.active_at = now
        ttl = configs.expiration(self.config)
        return ttl is not None and self.active_at + ttl < now

    def reconfigure(self, config: wire.Message, rules: Rules) -> Committed:
        """Apply a new configuration."""
        self.config = config
        if config.detached:
            self.backlog.clear()
        self.backlog.change_rules(rules)
        return self.flush()

    def delete(self) -> None:
        """Refuse all requests from now on."""
        self._deleted = True
        if self._timer is not None:
            self._timer.cancel()
        self.wake()

    def check(self) -> None:
        """Raise a StatusError if the subscription was deleted or detached."""
        if self._deleted:
            raise not_found(f"Subscription does not exist (resource={last_part(self.name)}).")
        if self.config.detached:
            raise wrong_state(f"Subscription {self.name} is detached from its topic; it has no messages.")

    def refusal(self) -> StatusError | None:
        """Give the error that `check` raises, or None."""
        try:
            self.check()
        except StatusError as refusal:
            return refusal
        return None

    # -- waiting

    def flush(self) -> Committed:
        """Write the changes to disk, wake the waiting consumers, and set the timer."""
        changes = self.backlog.collect()
        committed = self._commit(self, changes) if changes else None
        self.wake()
        return committed

    def wake(self) -> None:
        """Wake all waiting consumers, in the order in which they came."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._set_timer()

    async def changed(self) -> None:
        """Wait until there may be messages to take, or until the subscription is deleted."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _set_timer(self) -> None:
        due = self.backlog.next_event()
        if due is None or self._deleted or (self._timer is not None and self._timer_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer_at = due
        self._timer = loop.call_at(loop.time() + max(due - self._clock(), 0.001), self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self.backlog.advance(self._clock())
        self.flush()


def _modification(seconds: int) -> _Answer:
    if not 0 <= seconds <= 600:
        raise invalid(f"Invalid ack_deadline_seconds: {seconds} is not between 0 and 600.")
    return lambda backlog, now, message, lease: backlog.modify(now, message, lease, seconds)


def _read(text: str) -> AckId:
    parts = ack_ids.read(text)
    if parts is None:
        raise invalid(
            "Some acknowledgement ids in the request were invalid: they are malformed, and never came from here."
        )
    return parts

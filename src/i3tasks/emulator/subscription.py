"""A live subscription: its backlog, those who wait for messages, and the timer that stands for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from . import ack_ids, configs, filters, wire
from .ack_ids import AckId
from .backlog import Backlog, Changes
from .messages import Consumer, Delivery, Message, Outcome, Rules
from .names import last_part
from .refusals import Refusal, invalid, not_found, wrong_state

RESPONSE_BYTES = 1_000_000
"""A response is closed once it has this many bytes, so that streams take turns and clients need no huge buffers."""

Committed = asyncio.Future[None] | None
"""When the changes of a call are on disk; None when there were none."""

Failures = dict[str, Outcome]
"""Ack ids that had no effect. Only exactly-once subscriptions report them."""

_Answer = Callable[[Backlog, float, int, int], Outcome]


class Subscription:
    """What the RPCs and the push loop see of a subscription.

    `commit` writes the changes down and answers when that is done. Everything here runs in the event loop.
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
        self.streams = 0  # open ones
        self._clock = clock
        self._commit = commit
        self._waiters: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._deleted = False

    @property
    def name(self) -> str:
        """`projects/P/subscriptions/S`."""
        return str(self.config.name)

    @property
    def counts_attempts(self) -> bool:
        """Whether deliveries carry a delivery attempt: only where there is a dead letter policy."""
        return bool(self.config.HasField("dead_letter_policy"))

    # -- messages

    def add(self, message: Message) -> None:
        """A committed message arrives."""
        if not self._deleted and not self.config.detached:
            self.backlog.add(message)

    def take(self, consumer: Consumer, limit: int, deadline: float | None = None) -> list[Delivery]:
        """Messages for the consumer, leased for `deadline` seconds (the subscription's own if None)."""
        self.check()
        now = self._clock()
        seconds = self.backlog.rules.ack_deadline if deadline is None else deadline
        deliveries = self.backlog.take(now, consumer, limit, RESPONSE_BYTES, seconds)
        if deliveries:
            self.active_at = now
            self._set_timer()
        if self.backlog.has_changes:  # deadlines passed, which concerns others too
            self.flush()
        return deliveries

    def share(self, most: int) -> int:
        """How many messages one stream may take at a time, so that the others get their part of a small backlog."""
        return max(1, min(most, len(self.backlog) // max(self.streams, 1)))

    def ack_id(self, delivery: Delivery) -> str:
        """The id under which this delivery is answered for."""
        return str(AckId(self.number, delivery.message.id, delivery.lease))

    def acknowledge(self, texts: Iterable[str]) -> tuple[Failures, Committed]:
        """Settle deliveries, those of the same ordering key in their order. Answers with failures and the commit."""
        read = sorted((_read(text), text) for text in texts)
        return self._answer((text, parts, Backlog.ack) for parts, text in read)

    def modify(self, texts: Iterable[str], seconds: Iterable[int]) -> tuple[Failures, Committed]:
        """Move deadlines, each to its number of seconds from now. Answers with failures and the commit.

        The last messages go first: a nack takes back what follows it in its ordering key, which may be nacked too.
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
            outcome = answer(self.backlog, now, parts.message, parts.lease) if known else Outcome.VOID
            if outcome is not Outcome.DONE and self.backlog.rules.exactly_once:
                failures[text] = outcome
        return failures, self.flush()

    def seek(self, instant: float, replayable: Iterable[Message]) -> Committed:
        """See `Backlog.seek`."""
        self.active_at = now = self._clock()
        self.backlog.seek(now, instant, replayable)
        return self.flush()

    def prune(self) -> Committed:
        """Drop what is past the retention."""
        self.backlog.prune(self._clock())
        return self.flush()

    # -- its own life

    def has_expired(self, now: float) -> bool:
        """Whether nobody used it for as long as its expiration policy allows. A waiting consumer uses it."""
        if self._waiters:
            self.active_at = now
        ttl = configs.expiration(self.config)
        return ttl is not None and self.active_at + ttl < now

    def reconfigure(self, config: wire.Message, rules: Rules) -> Committed:
        """Go on under another configuration."""
        self.config = config
        if config.detached:
            self.backlog.clear()
        self.backlog.change_rules(rules)
        return self.flush()

    def delete(self) -> None:
        """Turn everyone away from now on."""
        self._deleted = True
        if self._timer is not None:
            self._timer.cancel()
        self.wake()

    def check(self) -> None:
        """Refuse what a deleted or detached subscription can't do."""
        if self._deleted:
            raise not_found(f"Subscription does not exist (resource={last_part(self.name)}).")
        if self.config.detached:
            raise wrong_state(f"Subscription {self.name} is detached from its topic; it has no messages.")

    def refusal(self) -> Refusal | None:
        """What `check` raises."""
        try:
            self.check()
        except Refusal as refusal:
            return refusal
        return None

    # -- waiting

    def flush(self) -> Committed:
        """Write down what changed, tell those who wait, and set the timer."""
        changes = self.backlog.collect()
        committed = self._commit(self, changes) if changes else None
        self.wake()
        return committed

    def wake(self) -> None:
        """Let everyone who waits look again, in the order in which they came."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._set_timer()

    async def changed(self) -> None:
        """Return when there may be something to take, or somebody turned everyone away."""
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

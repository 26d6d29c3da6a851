"""The backlog of one subscription: a state machine without a clock, a disk or a network.

A message waits and is leased to a consumer. Then it is acked, or it fails (a nack, or its deadline passes) and waits
again. Every method that needs the time takes it as `now`, in seconds since the epoch. Changes that must survive a
restart are gathered in `Changes` until `collect` takes them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from .delivery_order import AnyOrder, Entry, KeyOrder
from .messages import AckOutcome, Consumer, LeasedMessage, Message, Rules


@dataclass(slots=True)
class Changes:
    """The changes since the last `collect`, as message ids unless a comment says otherwise."""

    settled: list[int] = field(default_factory=list)  # never to be delivered again
    retained: list[int] = field(default_factory=list)  # acked, kept for a seek
    revived: list[int] = field(default_factory=list)  # to be delivered again after a seek
    failures: dict[int, int] = field(default_factory=dict)  # message id -> number of its failures so far
    exhausted: list[tuple[Message, int]] = field(default_factory=list)  # to be dead-lettered, with their attempts

    def __bool__(self) -> bool:
        return bool(self.settled or self.retained or self.revived or self.failures or self.exhausted)


class Backlog:
    """The undelivered and outstanding messages of one subscription, and the acked ones that it retains."""

    def __init__(self, rules: Rules, *, first_lease: int = 1) -> None:
        self._lease = first_lease
        self._entries: dict[int, Entry] = {}
        self._retained: dict[int, Message] = {}
        self._changes = Changes()
        self._keyed_first = False
        self._set_up(rules)

    def _set_up(self, rules: Rules) -> None:
        self.rules = rules
        self._free = AnyOrder()
        self._keyed = KeyOrder(one_per_key=rules.one_per_key)
        self._deadlines: list[tuple[float, int, Entry]] = []
        self._backoffs: list[tuple[float, int, Entry]] = []

    def __len__(self) -> int:
        return len(self._entries)

    # -- messages come in

    def add(self, message: Message, *, failures: int = 0) -> None:
        """Add a message that was published, or that is restored after a restart."""
        entry = Entry(message, failures)
        self._entries[message.id] = entry
        self._offer(entry)

    def restore_acked(self, message: Message) -> None:
        """Add a message that was acked before the restart and is still retained."""
        self._retained[message.id] = message

    def _offer(self, entry: Entry) -> None:
        if self._is_keyed(entry):
            self._keyed.add(entry)
        else:
            self._free.add(entry)

    def _is_keyed(self, entry: Entry) -> bool:
        return self.rules.ordered and entry.message.ordering_key != ""

    # -- messages go out

    def take(self, now: float, consumer: Consumer, limit: int, max_bytes: int, deadline: float) -> list[LeasedMessage]:
        """Lease up to `limit` messages to the consumer, for `deadline` seconds; stop when `max_bytes` are reached."""
        self.advance(now)
        deliveries: list[LeasedMessage] = []
        size = 0
        while len(deliveries) < limit and size < max_bytes and consumer.has_room():
            entry = self._next(consumer)
            if entry is None:
                break
            deliveries.append(self._lease_to(entry, consumer, now + deadline))
            size += len(entry.message.payload)
        return deliveries

    def _next(self, consumer: Consumer) -> Entry | None:
        """Take the next entry for the consumer. Messages with and without an ordering key take turns."""
        self._keyed_first = not self._keyed_first
        if self._keyed_first:
            return self._keyed.next(consumer) or self._free.next()
        return self._free.next() or self._keyed.next(consumer)

    def _lease_to(self, entry: Entry, consumer: Consumer, deadline: float) -> LeasedMessage:
        self._lease += 1
        entry.lease, entry.consumer, entry.deadline = self._lease, consumer, deadline
        consumer.messages += 1
        consumer.bytes += len(entry.message.payload)
        heapq.heappush(self._deadlines, (deadline, entry.lease, entry))
        return LeasedMessage(entry.message, entry.lease, entry.failures + 1)

    def _release(self, entry: Entry) -> None:
        if entry.consumer is not None:
            entry.consumer.messages -= 1
            entry.consumer.bytes -= len(entry.message.payload)
        entry.lease, entry.consumer = 0, None

    # -- the consumer answers

    def ack(self, now: float, message_id: int, lease: int) -> AckOutcome:
        """Settle a delivery.

        A late ack still counts for a message without an ordering key, unless the subscription is exactly-once. It does
        not count for a message with a key, because a failure of an earlier message may already have brought it back.
        """
        self.advance(now)
        entry = self._entries.get(message_id)
        if entry is None or (entry.lease != lease and (self.rules.exactly_once or self._is_keyed(entry))):
            return AckOutcome.VOID
        if self._is_keyed(entry):
            return self._ack_keyed(entry)
        self._release(entry)
        self._settle(entry)
        return AckOutcome.DONE

    def _ack_keyed(self, entry: Entry) -> AckOutcome:
        if self.rules.exactly_once and not self._keyed.is_first(entry):
            return AckOutcome.UNORDERED
        self._release(entry)
        for done in self._keyed.ack(entry):
            self._settle(done)
        return AckOutcome.DONE

    def modify(self, now: float, message_id: int, lease: int, seconds: float) -> AckOutcome:
        """Move a delivery's deadline to `seconds` from now; 0 is a nack."""
        self.advance(now)
        entry = self._entries.get(message_id)
        if entry is None or entry.lease != lease:
            return AckOutcome.VOID
        if seconds <= 0:
            self._fail([entry], now)
            return AckOutcome.DONE
        sooner = now + seconds < entry.deadline
        entry.deadline = now + seconds
        if sooner:
            heapq.heappush(self._deadlines, (entry.deadline, lease, entry))
        return AckOutcome.DONE

    def _leave(self, entry: Entry) -> None:
        """Take a released entry out of the queues. An entry without an ordering key is dropped when its turn comes."""
        if self._is_keyed(entry):
            for done in self._keyed.remove(entry):
                self._settle(done)

    def _settle(self, entry: Entry) -> None:
        """Settle an acked entry that no queue holds."""
        entry.settled = True
        del self._entries[entry.message.id]
        if self.rules.retain_acked:
            self._retained[entry.message.id] = entry.message
            self._changes.retained.append(entry.message.id)
        else:
            self._changes.settled.append(entry.message.id)

    def _fail(self, entries: list[Entry], now: float) -> None:
        """Fail deliveries at the same instant. All are counted before those that followed them are taken back."""
        for entry in entries:
            self._release(entry)
            entry.failures += 1
            self._changes.failures[entry.message.id] = entry.failures
        for entry in entries:
            if self._is_keyed(entry):
                for other in self._keyed.fail(entry):
                    self._release(other)
        for entry in entries:
            self._bury(entry) if self._is_exhausted(entry) else self._back_off(entry, now)

    def _is_exhausted(self, entry: Entry) -> bool:
        return 0 < self.rules.max_attempts <= entry.failures

    def _bury(self, entry: Entry) -> None:
        self._changes.exhausted.append((entry.message, entry.failures))
        self._drop(entry)

    def _back_off(self, entry: Entry, now: float) -> None:
        delay = self.rules.backoff(entry.failures)
        if delay > 0:
            heapq.heappush(self._backoffs, (now + delay, entry.message.id, entry))
            if self._is_keyed(entry):
                self._keyed.block(entry)
        elif not self._is_keyed(entry):
            self._free.add(entry)

    def _drop(self, entry: Entry) -> None:
        """Give up an entry in any state."""
        self._release(entry)
        self._leave(entry)
        entry.settled = True
        del self._entries[entry.message.id]
        self._changes.settled.append(entry.message.id)

    # -- time passes

    def advance(self, now: float) -> None:
        """Apply the deadlines and back-offs that have passed by `now`."""
        expired = list(dict.fromkeys(self._expired(now)))
        if expired:
            self._fail(expired, now)
        while self._backoffs and self._backoffs[0][0] <= now:
            entry = heapq.heappop(self._backoffs)[2]
            if self._is_keyed(entry):
                self._keyed.unblock(entry)
            else:
                self._free.add(entry)

    def _expired(self, now: float) -> Iterator[Entry]:
        while self._deadlines and self._deadlines[0][0] <= now:
            _, lease, entry = heapq.heappop(self._deadlines)
            if entry.lease != lease:
                continue
            if entry.deadline > now:
                heapq.heappush(self._deadlines, (entry.deadline, lease, entry))
                continue
            yield entry

    def next_event(self) -> float | None:
        """The earliest time at which `advance` may have something to do; None if only a request can change anything."""
        while self._deadlines and self._deadlines[0][1] != self._deadlines[0][2].lease:
            heapq.heappop(self._deadlines)
        while self._backoffs and self._backoffs[0][2].settled:
            heapq.heappop(self._backoffs)
        heads = [heap[0][0] for heap in (self._deadlines, self._backoffs) if heap]
        return min(heads, default=None)

    def prune(self, now: float) -> None:
        """Drop messages that were published longer ago than the retention, acked or not."""
        self.advance(now)
        horizon = now - self.rules.retention
        # Entries come oldest first, so a long backlog costs nothing while none of it is due.
        for entry in list(takewhile(lambda entry: entry.message.published_at < horizon, self._entries.values())):
            if not entry.settled:
                self._drop(entry)
        for message in [message for message in self._retained.values() if message.published_at < horizon]:
            del self._retained[message.id]
            self._changes.settled.append(message.id)

    # -- the terms change

    def change_rules(self, rules: Rules) -> None:
        """Apply new rules. Leases stay, unless the new rules queue messages in another way."""
        if (rules.ordered, rules.one_per_key) == (self.rules.ordered, self.rules.one_per_key):
            self.rules = rules
        else:
            self._rebuild(rules, [(entry.message, entry.failures) for entry in self._entries.values()])
        if not rules.retain_acked:
            self._changes.settled.extend(self._retained)
            self._retained.clear()

    def seek(self, now: float, instant: float, replayable: Iterable[Message] = ()) -> None:
        """Mark messages published before `instant` as acked, and all later messages that still exist as not acked.

        `replayable` are messages that the topic retains. Outstanding deliveries end.
        """
        self.advance(now)
        known = {message.id: message for message in replayable} | self._retained
        unacked = {message_id: entry.message for message_id, entry in self._entries.items()}
        for entry in [entry for entry in self._entries.values() if entry.message.published_at < instant]:
            if not entry.settled:
                self._discard(entry)
        revived = {key: message for key, message in known.items() if message.published_at >= instant}
        for key in revived:
            self._retained.pop(key, None)
        self._changes.revived.extend(key for key in revived if key not in unacked)
        left = {key: message for key, message in unacked.items() if message.published_at >= instant} | revived
        failures = {key: entry.failures for key, entry in self._entries.items()}
        self._rebuild(self.rules, [(left[key], failures.get(key, 0)) for key in sorted(left)])

    def _discard(self, entry: Entry) -> None:
        """Ack an entry that was not delivered."""
        self._release(entry)
        self._leave(entry)
        self._settle(entry)

    def clear(self) -> None:
        """Forget all messages. Called when the subscription is detached."""
        self._changes.settled.extend([*self._entries, *self._retained])
        self._retained.clear()
        self._rebuild(self.rules, [])

    def _rebuild(self, rules: Rules, messages: list[tuple[Message, int]]) -> None:
        for entry in self._entries.values():
            self._release(entry)
        self._entries.clear()
        self._set_up(rules)
        for message, failures in messages:
            self.add(message, failures=failures)

    @property
    def has_changes(self) -> bool:
        """Tell whether `collect` would return any changes."""
        return bool(self._changes)

    def collect(self) -> Changes:
        """Return the changes since the last call, to be written to disk."""
        changes, self._changes = self._changes, Changes()
        return changes

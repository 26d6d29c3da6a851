"""The order in which a subscription delivers its messages.

`AnyOrder` holds messages without an ordering key, `KeyOrder` those with one. For both, an entry is either waiting or
sent; leases, deadlines and counts belong to the backlog.
"""

from __future__ import annotations

from collections import deque

from .messages import Consumer, Message


class Entry:
    """A message that a subscription has not settled yet."""

    __slots__ = ("acked", "consumer", "deadline", "failures", "lane", "lease", "message", "settled")

    def __init__(self, message: Message, failures: int = 0) -> None:
        self.message = message
        self.failures = failures
        self.lease = 0  # 0 before a delivery, and after its end
        self.deadline = 0.0
        self.consumer: Consumer | None = None
        self.lane: OrderedKey | None = None
        self.acked = False  # acknowledged before an earlier message of its key
        self.settled = False


class AnyOrder:
    """A first-in, first-out queue. A message that failed goes to the end, so that it doesn't hold up others."""

    def __init__(self) -> None:
        self._waiting: deque[Entry] = deque()

    def add(self, entry: Entry) -> None:
        """Append the entry, for the first time or after a failure."""
        self._waiting.append(entry)

    def next(self) -> Entry | None:
        """Take the next entry. Settled entries are dropped here, so that settling needs no search."""
        while self._waiting:
            entry = self._waiting.popleft()
            if not entry.settled:
                return entry
        return None


class OrderedKey:
    """The lane of one ordering key: its messages that were `sent` and not settled, and those `waiting` behind them."""

    __slots__ = ("blocker", "consumer", "key", "sent", "shelf", "waiting")

    def __init__(self, key: str) -> None:
        self.key = key
        self.sent: dict[int, Entry] = {}
        self.waiting: deque[Entry] = deque()
        self.consumer: Consumer | None = None  # holds the sent messages, and therefore gets the next ones
        self.blocker: Entry | None = None  # an entry that backs off and holds up its lane
        self.shelf: Shelf | None = None

    def rewind(self, entry: Entry) -> list[Entry]:
        """Move a sent entry, and all entries that were sent after it, back to the front of the waiting ones."""
        back = [other for other in self.sent.values() if other.message.id >= entry.message.id]
        for other in back:
            del self.sent[other.message.id]
        self.waiting.extendleft(reversed(back))
        return back

    def pop_acked(self) -> list[Entry]:
        """Remove and return the acked entries that no failure of an earlier message can bring back."""
        done = []
        for entry in self.sent.values():
            if not entry.acked:
                break
            done.append(entry)
        for entry in done:
            del self.sent[entry.message.id]
        return done


Shelf = dict[str, OrderedKey]
"""Lanes with a message to deliver, by key; the next lane comes first."""


class KeyOrder:
    """The lanes of all ordering keys.

    A lane with a message to deliver is on the shelf of the consumer that holds the lane, or else on a common shelf.
    """

    def __init__(self, *, one_per_key: bool) -> None:
        self._one_per_key = one_per_key
        self._lanes: dict[str, OrderedKey] = {}
        self._shelves: dict[Consumer | None, Shelf] = {}  # the common shelf under None

    def add(self, entry: Entry) -> None:
        """Append the entry to the lane of its key."""
        key = entry.message.ordering_key
        lane = self._lanes.get(key) or self._lanes.setdefault(key, OrderedKey(key))
        entry.lane = lane
        lane.waiting.append(entry)
        if lane.shelf is None:
            self._shelve(lane)

    def next(self, consumer: Consumer) -> Entry | None:
        """Take the next entry that this consumer may have. Lanes that it already holds come first and take turns."""
        shelf = self._shelves.get(consumer) or self._shelves.get(None)
        if not shelf:
            return None
        lane = next(iter(shelf.values()))
        entry = lane.waiting.popleft()
        lane.sent[entry.message.id] = entry
        lane.consumer = consumer
        self._shelve(lane)
        return entry

    def fail(self, entry: Entry) -> list[Entry]:
        """Take back a sent entry and, to keep the order, all entries that were sent after it. Returns them."""
        lane = _lane_of(entry)
        if entry.message.id not in lane.sent:
            return []
        back = lane.rewind(entry)
        for other in back:
            other.acked = False
        self._shelve(lane)
        return back

    def block(self, entry: Entry) -> None:
        """Hold up the entry's lane until `unblock` is called for the same entry."""
        lane = _lane_of(entry)
        lane.blocker = entry
        self._shelve(lane)

    def unblock(self, entry: Entry) -> None:
        """Let the lane continue, unless another entry blocks it."""
        lane = _lane_of(entry)
        if lane.blocker is entry:
            lane.blocker = None
            self._shelve(lane)

    def is_first(self, entry: Entry) -> bool:
        """Tell whether no earlier message of the entry's key is outstanding."""
        return next(iter(_lane_of(entry).sent.values())) is entry

    def ack(self, entry: Entry) -> list[Entry]:
        """Mark a sent entry as acknowledged. Returns the entries that are settled by this, if any."""
        lane = _lane_of(entry)
        entry.acked = True
        done = lane.pop_acked()
        self._shelve(lane)
        return done

    def remove(self, entry: Entry) -> list[Entry]:
        """Remove the entry, sent or waiting, from its lane. Returns the other entries that are settled by this."""
        lane = _lane_of(entry)
        if lane.sent.pop(entry.message.id, None) is None:
            lane.waiting.remove(entry)
        if lane.blocker is entry:
            lane.blocker = None
        done = lane.pop_acked()
        self._shelve(lane)
        return done

    def _shelve(self, lane: OrderedKey) -> None:
        """Move the lane to the end of its shelf, or off the shelves if it has nothing to deliver now."""
        self._unshelve(lane)
        if not lane.sent:
            lane.consumer = None
        if not lane.sent and not lane.waiting:
            del self._lanes[lane.key]
        elif lane.waiting and lane.blocker is None and not (self._one_per_key and lane.sent):
            lane.shelf = self._shelves.setdefault(lane.consumer, {})
            lane.shelf[lane.key] = lane

    def _unshelve(self, lane: OrderedKey) -> None:
        if lane.shelf is not None:
            del lane.shelf[lane.key]
            lane.shelf = None


def _lane_of(entry: Entry) -> OrderedKey:
    lane = entry.lane
    assert lane is not None, "only entries with an ordering key come here"
    return lane

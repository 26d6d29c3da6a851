"""Which message of a subscription goes next.

`AnyOrder` holds messages without an ordering key, `KeyOrder` those with one. Both know entries only as waiting or sent;
leases, deadlines and counts belong to the backlog.
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
        self.lease = 0  # 0: not delivered, or its delivery is over
        self.deadline = 0.0
        self.consumer: Consumer | None = None
        self.lane: Lane | None = None
        self.acked = False  # acknowledged before an earlier message of its key
        self.settled = False


class AnyOrder:
    """First come, first served. What comes back goes to the end, so that a bad message doesn't hold up others."""

    def __init__(self) -> None:
        self._waiting: deque[Entry] = deque()

    def add(self, entry: Entry) -> None:
        """Offer the entry, for the first time or again."""
        self._waiting.append(entry)

    def next(self) -> Entry | None:
        """Take the next entry. Settled ones are dropped here, which spares a search when they settle."""
        while self._waiting:
            entry = self._waiting.popleft()
            if not entry.settled:
                return entry
        return None


class Lane:
    """The messages of one ordering key: `sent` were delivered and not settled, `waiting` follow them."""

    __slots__ = ("blocker", "consumer", "key", "sent", "shelf", "waiting")

    def __init__(self, key: str) -> None:
        self.key = key
        self.sent: dict[int, Entry] = {}
        self.waiting: deque[Entry] = deque()
        self.consumer: Consumer | None = None  # holds what is sent, and therefore gets what follows
        self.blocker: Entry | None = None  # backs off, and the lane with it
        self.shelf: Shelf | None = None

    def rewind(self, entry: Entry) -> list[Entry]:
        """Put a sent entry and all that were sent after it back in front of the waiting ones."""
        back = [other for other in self.sent.values() if other.message.id >= entry.message.id]
        for other in back:
            del self.sent[other.message.id]
        self.waiting.extendleft(reversed(back))
        return back

    def pop_acked(self) -> list[Entry]:
        """Take out the acked entries that no earlier message of the key can bring back any more."""
        done = []
        for entry in self.sent.values():
            if not entry.acked:
                break
            done.append(entry)
        for entry in done:
            del self.sent[entry.message.id]
        return done


Shelf = dict[str, Lane]
"""Lanes with something to deliver, by key, the next one first."""


class KeyOrder:
    """Lanes side by side. A lane with something to deliver lies on the shelf of the consumer that may have it."""

    def __init__(self, *, one_per_key: bool) -> None:
        self._one_per_key = one_per_key
        self._lanes: dict[str, Lane] = {}
        self._shelves: dict[Consumer | None, Shelf] = {}  # None: lanes that nobody holds

    def add(self, entry: Entry) -> None:
        """Append the entry to the lane of its key."""
        key = entry.message.ordering_key
        lane = self._lanes.get(key) or self._lanes.setdefault(key, Lane(key))
        entry.lane = lane
        lane.waiting.append(entry)
        if lane.shelf is None:
            self._shelve(lane)

    def next(self, consumer: Consumer) -> Entry | None:
        """Take the next entry that this consumer may have. Lanes it holds already come first, and take turns."""
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
        """Return the entry and, for the sake of order, all that were sent after it. They are the answer."""
        lane = _lane_of(entry)
        if entry.message.id not in lane.sent:
            return []
        back = lane.rewind(entry)
        for other in back:
            other.acked = False
        self._shelve(lane)
        return back

    def block(self, entry: Entry) -> None:
        """Hold the entry's lane until `unblock` of the same entry."""
        lane = _lane_of(entry)
        lane.blocker = entry
        self._shelve(lane)

    def unblock(self, entry: Entry) -> None:
        """Let the lane go on, unless another entry blocks it by now."""
        lane = _lane_of(entry)
        if lane.blocker is entry:
            lane.blocker = None
            self._shelve(lane)

    def is_first(self, entry: Entry) -> bool:
        """Whether no earlier message of the entry's key is outstanding."""
        return next(iter(_lane_of(entry).sent.values())) is entry

    def ack(self, entry: Entry) -> list[Entry]:
        """Mark a sent entry acknowledged. The answer: those that are done with, this one perhaps among them."""
        lane = _lane_of(entry)
        entry.acked = True
        done = lane.pop_acked()
        self._shelve(lane)
        return done

    def remove(self, entry: Entry) -> list[Entry]:
        """Take the entry out of its lane, wherever it is. The answer: others that are done with thereby."""
        lane = _lane_of(entry)
        if lane.sent.pop(entry.message.id, None) is None:
            lane.waiting.remove(entry)
        if lane.blocker is entry:
            lane.blocker = None
        done = lane.pop_acked()
        self._shelve(lane)
        return done

    def _shelve(self, lane: Lane) -> None:
        """Move the lane to the end of the shelf where it belongs, if anywhere."""
        self._unshelve(lane)
        if not lane.sent:
            lane.consumer = None
        if not lane.sent and not lane.waiting:
            del self._lanes[lane.key]
        elif lane.waiting and lane.blocker is None and not (self._one_per_key and lane.sent):
            lane.shelf = self._shelves.setdefault(lane.consumer, {})
            lane.shelf[lane.key] = lane

    def _unshelve(self, lane: Lane) -> None:
        if lane.shelf is not None:
            del lane.shelf[lane.key]
            lane.shelf = None


def _lane_of(entry: Entry) -> Lane:
    lane = entry.lane
    assert lane is not None, "only entries with an ordering key come here"
    return lane

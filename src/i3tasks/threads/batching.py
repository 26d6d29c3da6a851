"""A thread that handles, in batches, the items that other threads put.

The thread does not wait for a batch to fill: the items that were put while one batch was being handled are the next
batch. So batches grow with the load, and a single item is handled at once. The store's writer and the broker's
publisher both use this class.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from ..telemetry import emit

Item = TypeVar("Item")


class BatchThread(Generic[Item]):
    """Calls `handle(batch)` in its own thread, which starts at the first `put` and ends when it is idle.

    `handle` should not raise. If it does, the error becomes an `internal_error` event and the thread goes on.
    `on_end` runs in the thread when it ends, to close the thread's resources.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[list[Item]], None],
        *,
        max_batch: int,
        max_queued: int,
        idle_seconds: Callable[[], float],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._name = name
        self._handle = handle
        self._max_batch = max_batch
        self._max_queued = max_queued
        self._idle_seconds = idle_seconds
        self._on_end = on_end
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._ready: deque[Item] = deque()
        self._later: list[tuple[float, int, Item]] = []  # a heap; the count breaks ties
        self._count = itertools.count()
        self._thread: threading.Thread | None = None
        self._latest: threading.Thread | None = None  # kept after its end, so that `join` can wait for it
        self._busy = False
        self._ends_at = float("inf")  # when the thread ends, if nothing comes and nothing is to be handled later
        self._wakes_at = float("-inf")  # when the thread, if it sleeps, looks again by itself

    def put(self, item: Item, *, delay: float = 0, even_if_full: bool = False) -> bool:
        """Queue `item`, to be handled after `delay` seconds. Never blocks.

        Returns False if the queue is full or the interpreter is shutting down: the item was not queued.
        `even_if_full` is for items that must not be lost and whose number is limited elsewhere.
        """
        room = None if even_if_full else self._max_queued
        return self._put([item], delay, room) == 1

    def put_all(self, items: Sequence[Item], *, delay: float = 0) -> int:
        """Queue as many of the items as there is room for, to be handled after `delay` seconds: their number."""
        return self._put(items, delay, self._max_queued)

    def _put(self, items: Sequence[Item], delay: float, most: int | None) -> int:
        with self._changed:
            room = len(items) if most is None else most - len(self._ready) - len(self._later)
            if not items or room <= 0 or not self._started():
                return 0
            taken = items[:room]
            if delay > 0:
                due = time.monotonic() + delay
                for item in taken:
                    heapq.heappush(self._later, (due, next(self._count), item))
                if due >= self._wakes_at:
                    return len(taken)  # the thread wakes early enough by itself
            else:
                self._ready.extend(taken)
            self._changed.notify_all()
            return len(taken)

    @property
    def has_ready(self) -> bool:
        """Whether items wait to be handled at once."""
        return bool(self._ready)

    def hurry(self, is_meant: Callable[[Item], bool]) -> None:
        """Handle the delayed items that are meant now, in the order in which they would have fallen due."""
        with self._changed:
            self._ready.extend(item for _, _, item in sorted(self._later) if is_meant(item))
            self._later = [entry for entry in self._later if not is_meant(entry[2])]
            heapq.heapify(self._later)
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until all items put so far without a delay are handled; return False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._ready or self._busy), timeout)

    def discard(self, item: Item) -> None:
        """Remove an item whose delay has not passed yet. An item that is already due is handled as usual."""
        with self._changed:
            self._later = [entry for entry in self._later if entry[2] is not item]
            heapq.heapify(self._later)
            if not self._later and time.monotonic() >= self._ends_at:
                self._changed.notify_all()  # it was kept alive by this item only

    def join(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the idle thread to end, including its `on_end`."""
        latest = self._latest
        if latest is not None:
            latest.join(timeout)

    def _started(self) -> bool:
        if self._thread is None or not self._thread.is_alive():  # SystemExit in `handle` ends a thread silently
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down
                return False
            self._thread = self._latest = thread
        return True

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._handle_safely(batch)
        finally:
            self._on_end()

    def _next_batch(self) -> list[Item]:
        """Wait for items and return them. An empty batch means that the thread was idle long enough to end."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._ends_at = time.monotonic() + self._idle_seconds()
            while True:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    self._ready.append(heapq.heappop(self._later)[2])
                if self._ready:
                    self._busy = True
                    return [self._ready.popleft() for _ in range(min(self._max_batch, len(self._ready)))]
                if not self._later and now >= self._ends_at:
                    self._thread = None
                    return []
                next_due = self._later[0][0] if self._later else float("inf")
                self._wakes_at = min(next_due, self._ends_at) if now < self._ends_at else next_due
                self._changed.wait(max(self._wakes_at - now, 0.001))
                self._wakes_at = float("-inf")

    def _handle_safely(self, batch: list[Item]) -> None:
        try:
            self._handle(batch)
        except Exception as error:
            emit("internal_error", where=self._name, error=repr(error), exc_info=error)


_all: weakref.WeakSet[BatchThread[Any]] = weakref.WeakSet()


def _abandon_in_child() -> None:
    """Reset all batch threads in a forked child: it has no threads of its parent, and their locks may stay held."""
    for batch_thread in list(_all):
        batch_thread._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_in_child)

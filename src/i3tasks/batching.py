"""One thread that handles, in batches, what all other threads put.

There is no linger: whatever was put while the last batch was being handled makes the next one, so batches grow with
the load and a lone item does not wait. The store's writer and the broker's publisher both stand on this.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from .telemetry import emit

Item = TypeVar("Item")


class BatchThread(Generic[Item]):
    """Calls `handle(batch)` in a thread of its own, started at the first `put` and ended when idle.

    `handle` must not raise; should it all the same, the error is an event and the thread goes on.
    `on_end` runs in the thread when it ends, to close what belongs to it.
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
        self._latest: threading.Thread | None = None  # kept past its end, to be joined
        self._busy = False

    def put(self, item: Item, *, delay: float = 0) -> bool:
        """Queue `item`, to be handled after `delay` seconds. Never blocks; False means full, or shutting down."""
        with self._changed:
            if len(self._ready) + len(self._later) >= self._max_queued or not self._started():
                return False
            if delay > 0:
                heapq.heappush(self._later, (time.monotonic() + delay, next(self._count), item))
            else:
                self._ready.append(item)
            self._changed.notify_all()
            return True

    def flush(self, timeout: float) -> bool:
        """Wait until everything put so far without a delay is handled. False: not within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not (self._ready or self._busy), timeout)

    def discard(self, item: Item) -> None:
        """Forget an item whose delay has not passed yet; any other is handled as usual."""
        with self._changed:
            self._later = [entry for entry in self._later if entry[2] is not item]
            heapq.heapify(self._later)
            self._changed.notify_all()

    def join(self, timeout: float) -> None:
        """Wait for the thread to end by idleness, its `on_end` included."""
        latest = self._latest
        if latest is not None:
            latest.join(timeout)

    def _started(self) -> bool:
        if self._thread is None or not self._thread.is_alive():  # SystemExit in `handle` ends a thread in silence
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
        """Wait for items. An empty batch means that the thread was idle for long enough to end."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            deadline = time.monotonic() + self._idle_seconds()
            while True:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    self._ready.append(heapq.heappop(self._later)[2])
                if self._ready:
                    self._busy = True
                    return [self._ready.popleft() for _ in range(min(self._max_batch, len(self._ready)))]
                if not self._later and now >= deadline:
                    self._thread = None
                    return []
                wake = self._later[0][0] if self._later else deadline
                self._changed.wait(max(wake - now, 0.001))

    def _handle_safely(self, batch: list[Item]) -> None:
        try:
            self._handle(batch)
        except Exception as error:
            emit("internal_error", where=self._name, error=repr(error), exc_info=error)


_all: weakref.WeakSet[BatchThread[Any]] = weakref.WeakSet()


def _abandon_in_child() -> None:
    """A forked child has none of the parent's threads, and its copies of their locks may be held for ever."""
    for batch_thread in list(_all):
        batch_thread._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_in_child)

"""What no forked child may be born in the middle of."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FORK_WAITS_SECONDS = 5.0  # what hangs must not keep the process from forking


class ForkBarrier:
    """`with barrier.held():` one thread at a time, and forks of the process wait for its end, up to 5 s.

    For what leaves things in the process half done that a child, which has none of its parent's threads, would find
    so for ever. Make them at module level: they live as long as the process.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._stops_fork = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._after_in_child)

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            yield

    def _before(self) -> None:
        self._stops_fork = self._lock.acquire(timeout=FORK_WAITS_SECONDS)

    def _after(self) -> None:
        if self._stops_fork:
            self._lock.release()

    def _after_in_child(self) -> None:
        self._lock = threading.RLock()

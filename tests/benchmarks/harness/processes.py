"""Memory and CPU time of a process and all of its descendants."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import psutil


def tree(pid: int) -> list[psutil.Process]:
    """The process and its descendants that live."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def cpu_seconds(pid: int) -> float:
    """User and system time of the tree, children that have ended included."""
    return _sum(pid, lambda process: sum(process.cpu_times()[:4]))


def resident(pid: int) -> int:
    """Resident bytes of the tree; pages that processes share are counted for each."""
    return int(_sum(pid, lambda process: process.memory_info().rss))


def proportional(pid: int) -> int:
    """Resident bytes of the tree, with shared pages divided among those that share them."""
    return int(_sum(pid, lambda process: process.memory_full_info().pss))


def _sum(pid: int, of: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for process in tree(pid):
        with suppress(psutil.Error):
            total += of(process)
    return total


class Peak:
    """The largest resident size of a tree, looked at several times a second while the block runs."""

    def __init__(self, pid: int, every: float = 0.2) -> None:
        self._pid, self._every = pid, every
        self.bytes = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._ended.wait(self._every):
            self.bytes = max(self.bytes, resident(self._pid))

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = max(self.bytes, resident(self._pid))
        self._ended.set()
        self._thread.join()

"""Counts the bodies that wait for the results of other calls.

If all bodies that a process can run were waiting, none of the calls that they wait for could start. The counts are in
a small file, which bodies that run in child processes share.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .shared_lanes import SharedLane

_COUNTS = struct.Struct("=ii")  # of the bodies in the process itself: all, and those that occupy a thread


class Waits:
    """Counts the waiting bodies of one pool: all of them, and those that occupy a thread."""

    def __init__(self, *, slots: int, threads: int) -> None:
        self._lock = threading.Lock()
        self._slots, self._threads = slots, threads
        self._all = self._in_threads = 0
        self._board: _Board | None = None

    def add(self, count: int, *, in_thread: bool) -> None:
        with self._lock:
            self._all += count
            self._in_threads += count if in_thread else 0
            if self._board is not None:
                self._board.write(self._all, self._in_threads)

    def leave_no_room(self, *, for_thread: bool) -> bool:
        """Whether the waiting bodies occupy every slot, or every thread, that the awaited call would need."""
        in_children = 0 if self._board is None else self._board.in_children
        is_full = self._all + in_children >= self._slots
        return is_full or (for_thread and self._in_threads + in_children >= self._threads)

    @contextmanager
    def child(self) -> Iterator[ChildsPlace | None]:
        """A place for a body in a child process. None if the machine has no room for the file: it is not counted."""
        with self._lock:
            if self._board is None:
                with suppress(OSError):
                    self._board = _Board.make(self._threads)
                    self._board.write(self._all, self._in_threads)
            place = None if self._board is None else self._board.take(self._slots, self._threads)
        try:
            yield place
        finally:
            if place is not None and self._board is not None:
                self._board.give_back(place)

    def close(self) -> None:
        """Remove the file."""
        with self._lock:
            if self._board is not None:
                self._board.remove()
                self._board = None


@dataclass(frozen=True, slots=True)
class ChildsPlace:
    """The byte in which a body in a child process notes that it waits."""

    path: str
    index: int
    slots: int
    threads: int


class ChildWaits:
    """The waits of a pool, as the child process of one of its bodies sees them."""

    def __init__(self, place: ChildsPlace) -> None:
        self._lock = threading.Lock()
        self._place = place
        self._count = 0
        self._board = _Board(place.path, place.threads)

    def add(self, count: int, *, in_thread: bool) -> None:
        with self._lock:
            self._count += count
            self._board.mark(self._place.index, waits=self._count > 0)

    def leave_no_room(self, *, for_thread: bool) -> bool:
        everywhere, in_threads = self._board.read()
        in_children = self._board.in_children
        is_full = everywhere + in_children >= self._place.slots
        return is_full or (for_thread and in_threads + in_children >= self._place.threads)


class _Board:
    """The file: two counts, and a byte for each body that may be in a child process. Each byte has one writer."""

    def __init__(self, path: str, places: int) -> None:
        self.path = path
        with open(path, "r+b") as file:
            self._bytes = mmap.mmap(file.fileno(), _COUNTS.size + places)
        self._free = list(range(places))

    @classmethod
    def make(cls, places: int) -> _Board:
        number, path = tempfile.mkstemp(prefix="i3tasks-waits-")
        with open(number, "wb") as file:
            file.write(bytes(_COUNTS.size + places))
        return cls(path, places)

    @property
    def in_children(self) -> int:
        """How many bodies in child processes wait."""
        return self._bytes[_COUNTS.size :].count(1)

    def read(self) -> tuple[int, int]:
        everywhere, in_threads = _COUNTS.unpack_from(self._bytes)
        return everywhere, in_threads

    def write(self, everywhere: int, in_threads: int) -> None:
        _COUNTS.pack_into(self._bytes, 0, everywhere, in_threads)

    def take(self, slots: int, threads: int) -> ChildsPlace | None:
        return ChildsPlace(self.path, self._free.pop(), slots, threads) if self._free else None

    def give_back(self, place: ChildsPlace) -> None:
        """Free a place, also that of a child that was killed while it waited."""
        self.mark(place.index, waits=False)
        self._free.append(place.index)

    def mark(self, index: int, *, waits: bool) -> None:
        self._bytes[_COUNTS.size + index] = waits

    def remove(self) -> None:
        with suppress(OSError):
            os.unlink(self.path)


class CurrentBody:
    """The body that runs in this context."""

    lane: SharedLane | None = None
    """For the ORM calls of a coroutine, once it has made one."""
    has_ended = False

    def __init__(self, waits: Waits | ChildWaits, *, in_thread: bool) -> None:
        self.waits = waits
        self._in_thread = in_thread

    def end(self) -> None:
        """Give the lane up. What the body has left behind makes no ORM calls in it any more."""
        self.has_ended = True
        if self.lane is not None:
            self.lane.release()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the body as waiting for another call's result while the block runs."""
        self.waits.add(1, in_thread=self._in_thread)
        try:
            yield
        finally:
            self.waits.add(-1, in_thread=self._in_thread)


current_body: ContextVar[CurrentBody | None] = ContextVar("i3tasks_body", default=None)

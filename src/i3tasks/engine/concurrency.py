"""Decides which tries may start, in the order in which they came.

At most `slots` tries are under way at a time. A sync function needs a thread besides, for its body alone: its claim
is made while other bodies are still in the threads, and its settlement when its thread has the next body already.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

AHEAD_SECONDS = 0.05
"""How long a claimed try may be expected to wait for a thread. Bodies that take longer are not claimed ahead."""
_WEIGHT = 0.1  # of the latest body in the average


class Applicant(Protocol):
    """A try that wants to start."""

    in_thread: bool
    """Whether it is a sync function."""
    is_in_process: bool
    """Whether its body runs in a child process: then its thread stands for the process, and must be free at once."""
    number: int

    def begin(self) -> bool:
        """Start the try. False: it no longer wants to start."""
        ...

    def refuse(self) -> None:
        """Give up: no new try is started."""
        ...


@dataclass(frozen=True, slots=True)
class Room:
    """The number of tries that could start now, and how many of them may be sync functions."""

    tries: int
    threads: int


class Admission:
    """The queue of the tries that want to start, and the slots and threads that they wait for."""

    def __init__(self, *, slots: int, threads: int) -> None:
        self._free = slots
        self._threads = threads
        self._bound = 0  # sync tries that were admitted and whose bodies have not left their threads
        self._in_processes = 0  # those of them whose thread stands for a child process
        self._pace = _Pace(threads)
        self._numbers = itertools.count()
        self._waiting: dict[bool, deque[Applicant]] = {False: deque(), True: deque()}
        self._claimed: deque[Applicant] = deque()  # those that have a slot and wait for a thread alone
        self.is_closed = False

    @property
    def room(self) -> Room:
        """The room that is free now; none once no new try is started."""
        return Room(0 if self.is_closed else self._free, self.spare_threads)

    @property
    def spare_threads(self) -> int:
        """The threads that are free now; none once no new try is started."""
        return 0 if self.is_closed else max(self._threads - self._bound, 0)

    def ask(self, applicant: Applicant) -> None:
        """Let `applicant` begin as soon as there is room for it and for those before it."""
        if self.is_closed:
            applicant.refuse()
            return
        applicant.number = next(self._numbers)
        self._waiting[applicant.in_thread].append(applicant)
        self._admit()

    def ask_thread(self, applicant: Applicant) -> None:
        """Let `applicant`, which has a slot already, begin as soon as a thread is free, before those without a slot."""
        if self.is_closed:
            applicant.refuse()
            return
        self._claimed.append(applicant)
        self._admit()

    def leave(self) -> None:
        """Take back the slot of a try that has ended."""
        self._free += 1
        self._admit()

    def free_thread(self, seconds: float | None = None, *, of_process: bool = False) -> None:
        """Take back the thread of a sync try. `seconds` is how long the body was in it; None: no body was in it."""
        self._bound -= 1
        self._in_processes -= of_process
        if seconds is not None:
            self._pace.note(seconds)
        self._admit()

    def close(self) -> None:
        """Refuse all applicants, those that wait and those that come later."""
        self.is_closed = True
        for waiting in (self._claimed, *self._waiting.values()):
            while waiting:
                waiting.popleft().refuse()

    def _admit(self) -> None:
        while self._claimed and self._has_thread_for(self._claimed[0]):
            applicant = self._claimed.popleft()
            if applicant.begin():
                self._bind(applicant)
        while self._free and (waiting := self._next()):
            applicant = waiting.popleft()
            if applicant.begin():
                self._free -= 1
                if applicant.in_thread:
                    self._bind(applicant)

    def _bind(self, applicant: Applicant) -> None:
        self._bound += 1
        self._in_processes += applicant.is_in_process

    def _next(self) -> deque[Applicant] | None:
        """The queue whose first applicant came first, of those that may begin."""
        coroutines, sync = self._waiting[False], self._waiting[True]
        if self._claimed or not sync or not self._has_thread_for(sync[0]):
            return coroutines or None
        if not coroutines or sync[0].number < coroutines[0].number:
            return sync
        return coroutines

    def _has_thread_for(self, applicant: Applicant) -> bool:
        if self._bound < self._threads:
            return True
        # A thread that stands for a child process is idle: what is claimed ahead would begin in it, as one too many.
        if applicant.is_in_process or self._in_processes:
            return False
        return self._bound < self._threads + self._pace.ahead()


class _Pace:
    """How long bodies stay in threads, and how many may be claimed before a thread is free for them."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._average = 1.0  # seconds; nothing is claimed ahead until bodies have proved to be short
        self._noted_at = 0.0

    def note(self, seconds: float) -> None:
        self._average += _WEIGHT * (seconds - self._average)
        self._noted_at = time.monotonic()

    def ahead(self) -> int:
        """The number of bodies that the threads will have taken within AHEAD_SECONDS; none if they move no more."""
        if time.monotonic() - self._noted_at > AHEAD_SECONDS:
            return 0
        return int(self._threads * AHEAD_SECONDS / max(self._average, 1e-6))

"""Time and randomness, passed in as a value.

A function that decides something takes a `Clock` (or an instant) as an argument. Only the outermost callers ask for
the `current_clock`: the system's, unless a test or a simulation has set its own with `going_by`.
"""

# No `from __future__ import annotations`: a dataclass searches each annotation that is text, at every start.

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID

from .frozen import Frozen, dataclass


@dataclass(frozen=True)
class Clock(Frozen):
    """The inputs that differ from one run to the next."""

    now: Callable[[], datetime]  # aware, in UTC
    monotonic: Callable[[], float]  # seconds since any fixed point
    random: Callable[[], float]  # uniform in [0, 1)
    random_bytes: Callable[[int], bytes]
    database_now: Callable[[], datetime] | None = None  # None: the database's own clock, read by each transaction

    def jitter(self, spread: float) -> float:
        """A factor spread evenly over 1 - spread to 1 + spread."""
        return 1 + spread * (2 * self.random() - 1)

    def new_uuid7(self) -> UUID:
        """A version 7 UUID (RFC 9562): sorts by its time of creation, so that its index grows at one end."""
        return UUID(int=self._uuid7s(1)[0])

    def new_uuid7s(self, count: int) -> list[str]:
        """So many of them in hexadecimal, in their order."""
        return [f"{number:032x}" for number in sorted(self._uuid7s(count))]

    def _uuid7s(self, count: int) -> list[int]:
        moment = int(self.now().timestamp() * 1000) << 80 | 7 << 76 | 0b10 << 62
        chance = self.random_bytes(10 * count)
        each = [int.from_bytes(chance[start : start + 10], "big") for start in range(0, len(chance), 10)]
        return [moment | (bits >> 68) << 64 | bits & (1 << 62) - 1 for bits in each]


class _Entropy:
    """Random bytes of the system, fetched for hundreds of uses at a time: a call of the system lets other threads run.

    A forked child does not get those that its parent has left.
    """

    _CHUNK, _CHUNKS = 10, 400  # as `new_uuid7` takes them

    def __init__(self) -> None:
        self._left: list[bytes] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._left.clear)

    def __call__(self, count: int) -> bytes:
        if count != self._CHUNK:
            return os.urandom(count)
        try:
            return self._left.pop()  # which two threads can't get both
        except IndexError:
            more = os.urandom(count * self._CHUNKS)
            self._left.extend(more[at : at + count] for at in range(count, len(more), count))
            return more[:count]


SYSTEM_CLOCK = Clock(
    now=lambda: datetime.now(UTC),
    monotonic=time.monotonic,
    random=random.SystemRandom().random,
    random_bytes=_Entropy(),
)

_current = SYSTEM_CLOCK


def current_clock() -> Clock:
    """The clock of code that is passed none."""
    return _current


@contextmanager
def going_by(clock: Clock) -> Iterator[None]:
    """Make `clock` the current one, in all threads, while the block runs."""
    global _current
    before, _current = _current, clock
    try:
        yield
    finally:
        _current = before

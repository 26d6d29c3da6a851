"""Checks that Google's library still works on a stream: when one of its threads ends or hangs, it raises no error."""

from __future__ import annotations

from typing import Protocol

from ..core.clock import Clock

WATCH_SECONDS = 2.0
STUCK_SECONDS = 60.0
"""Time in which no request ended though answers waited, after which the client counts as stuck. The library gives up
a single request sooner."""
DOUBT_SECONDS = 60.0
LONGEST_DOUBT_SECONDS = 900.0


class Watched(Protocol):
    """The part of a session that the watchdog reads."""

    @property
    def dead_threads(self) -> list[str]: ...

    @property
    def answers_waiting(self) -> int: ...

    @property
    def answers_sent(self) -> int: ...


class Watchdog:
    """Looks at one session every WATCH_SECONDS."""

    def __init__(self, session: Watched, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self._dead: list[str] = []
        self._sent = -1
        self._sent_at = clock.monotonic()

    def look(self) -> str | None:
        """Check the session. Returns a sentence that says what is wrong, or None.

        A thread counts as ended if two checks in a row miss it, because the stream may be ending at the first.
        """
        dead, before = self._session.dead_threads, self._dead
        self._dead = dead
        gone = [name for name in dead if name in before]
        if gone:
            return f"A thread of the Pub/Sub client has ended ({', '.join(gone)})."
        if self._is_stuck():
            return f"The Pub/Sub client has sent no ack for {STUCK_SECONDS:.0f} seconds, though some wait."
        return None

    def _is_stuck(self) -> bool:
        sent, now = self._session.answers_sent, self._clock.monotonic()
        if sent != self._sent or not self._session.answers_waiting:
            self._sent, self._sent_at = sent, now
        return now - self._sent_at > STUCK_SECONDS


class Doubts:
    """The time for which a stream that seems healthy has brought nothing while tries of its queue waited."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: float | None = None
        self._at_most = DOUBT_SECONDS

    def grow(self) -> bool:
        """Note that tries had to be found in the database. Returns True once the stream should be opened again.

        Each new stream that does not help doubles the time until the next.
        """
        now = self._clock.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since < self._at_most:
            return False
        self._since = None
        self._at_most = min(2 * self._at_most, LONGEST_DOUBT_SECONDS)
        return True

    def end(self) -> None:
        """Note that a message came."""
        self._since = None
        self._at_most = DOUBT_SECONDS

"""The loop that publishes due tries, and ends the tries of workers that are gone.

Any number of dispatchers may run at once, in workers and elsewhere: the store gives each row to one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from datetime import timedelta

from django.db import DatabaseError, InterfaceError

from ..broker.publisher import get_publisher
from ..conf import get_config
from ..core.clock import SYSTEM_CLOCK, Clock
from ..store.database import Instant, is_contention, time_of
from ..store.dispatching import next_due, take_due
from ..store.expiry import expire_leases
from ..store.fallback import take_unheard
from ..store.groups import expire_groups
from ..store.pauses import known_pauses, release
from ..store.requests import TryRef
from ..store.slices import open_slice
from ..telemetry import emit
from ..threads.connections import look
from ..threads.looping import repeat_in_own_thread
from . import outbox
from .board_acts import advance

BATCH = 500
IDLE_SECONDS = 0.5
OUTAGE_SECONDS = 1.0
ACTS_EVERY_SECONDS = 5.0
"""How often it looks for acts of the board that their web process has not finished."""
ACT_SECONDS = 0.3
"""How long it works on one between two passes."""
CONTENTION_SECONDS = 0.05
SOON_SECONDS = 0.01
BUSY_SECONDS = 20.0
"""A caller without a loop comes back only after a minute, and its request must not take much longer than this."""


class Dispatcher:
    """The dispatcher of a process. `run` is the loop; `pass_once` is one turn of it, for callers without a loop.

    `on_pass` is called after each pass that got through.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK, on_pass: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._on_pass = on_pass
        self._is_down = False
        self.is_well = True  # the last pass got through
        self._has_more = False  # the last pass left some of what is due
        self._is_overdue = False  # something was due at the end of the last pass
        self._last_pass = float("-inf")
        self._expire_from = 0.0
        self._listen_from = 0.0
        self._act_from = 0.0
        self._wait_a_lease()

    async def run(self) -> None:
        """Call `pass_once` again and again until cancelled, in a thread that has its own database connections."""
        await repeat_in_own_thread("i3tasks-dispatcher", self.pass_once)

    def pass_once(self) -> float:
        """Publish due tries and end those with expired leases. Returns the seconds until the next pass."""
        look()
        self._last_pass = self._clock.monotonic()
        self._has_more = False
        try:
            wait = self._pass()
        except (DatabaseError, InterfaceError) as error:
            if is_contention(error):
                return CONTENTION_SECONDS
            self._go_down(error)
            self.is_well = False
            return OUTAGE_SECONDS
        except Exception as error:  # a bug in i3tasks; all processes rely on this loop, so it goes on
            emit("internal_error", where="dispatcher", error=repr(error), exc_info=error)
            self.is_well = False
            return OUTAGE_SECONDS
        self._is_down = False
        self.is_well = True
        self._on_pass()
        return wait

    def pass_while_busy(self) -> None:
        """Make passes for as long as there is more to do than one does, at most for BUSY_SECONDS."""
        end = self._clock.monotonic() + BUSY_SECONDS
        self.pass_once()
        while self.is_well and self._has_more and self._clock.monotonic() < end:
            self.pass_once()

    def seconds_since_pass(self) -> float:
        """The seconds since the last pass began; infinite before the first."""
        return self._clock.monotonic() - self._last_pass

    def _pass(self) -> float:
        now = time_of(self._clock)
        paused = known_pauses.read()
        if self._clock.monotonic() >= self._expire_from:
            outbox.send(expire_leases(BATCH, clock=self._clock, now=now), clock=self._clock)
        outbox.send(map(TryRef.of_new, expire_groups(BATCH, now=now)), clock=self._clock)
        # While the broker is unavailable, one try at a time is enough to find out when it is back: each try that is
        # taken is put off by the grace period.
        batch = BATCH if get_publisher().is_available else 1
        if batch > 1:
            outbox.send(self._unheard(now, paused), clock=self._clock)
        released = release(batch, paused, now=now)
        due = take_due(batch, paused=paused, now=now)
        outbox.send(due, clock=self._clock)
        pause = self._open_slice(now)
        self._act()
        is_full = max(len(due), released) >= BATCH
        self._has_more = is_full or pause is not None
        if is_full:
            return 0.0
        if pause is not None:
            return pause
        return IDLE_SECONDS if batch == 1 else self._seconds_until_next(now)

    def _seconds_until_next(self, now: Instant) -> float:
        earliest = next_due(timedelta(seconds=IDLE_SECONDS), now=now)
        wait = IDLE_SECONDS if earliest is None else (earliest[1] - earliest[0]).total_seconds()
        # A try that is overdue right after a pass has just fallen due, or is locked by a transaction that may be long.
        was_overdue, self._is_overdue = self._is_overdue, wait <= 0
        if was_overdue and wait <= 0:
            return IDLE_SECONDS
        return min(max(wait, SOON_SECONDS), IDLE_SECONDS)

    def _open_slice(self, now: Instant) -> float | None:
        """Enqueue some members of a large group. Returns the pause until the next; None if there are none.

        The pause is as long as the writing took: on SQLite no other connection could write meanwhile.
        """
        began = self._clock.monotonic()
        tries = open_slice(now=now)
        if tries is None:
            return None
        outbox.send(map(TryRef.of_new, tries), clock=self._clock)
        return min(max(self._clock.monotonic() - began, SOON_SECONDS), IDLE_SECONDS)

    def _act(self) -> None:
        """Go on with an act of the board. An error of an act is no outage, and holds up no other act and no try."""
        if self._clock.monotonic() >= self._act_from:
            act = None
            try:
                act = advance(seconds=ACT_SECONDS, clock=self._clock)
            except (DatabaseError, InterfaceError):
                raise
            except Exception as error:
                emit("internal_error", where="act of the board", error=repr(error), exc_info=error)
            if act is None or act.finished_at is not None:
                self._act_from = self._clock.monotonic() + ACTS_EVERY_SECONDS

    def _unheard(self, now: Instant, paused: Container[str]) -> list[TryRef]:
        """Take the tries of quiet push queues, to publish them again. Workers take those of pull queues themselves."""
        config = get_config()
        seconds = config.settings.fallback_seconds
        if seconds is None or self._clock.monotonic() < self._listen_from:
            return []
        self._listen_from = self._clock.monotonic() + seconds
        unheard: list[TryRef] = []
        for queue in config.push_queues:
            if queue.name in paused:
                continue
            refs = take_unheard(queue.name, timedelta(seconds=seconds), now=now)
            if refs:
                emit("push_queue_quiet", queue=queue.name, tries=len(refs))
            unheard += refs
        return unheard

    def _go_down(self, error: Exception) -> None:
        self._wait_a_lease()
        if not self._is_down:
            self._is_down = True
            emit("dispatch_failed", error=str(error))

    def _wait_a_lease(self) -> None:
        """Expire no lease for the length of one: after an outage of the database all look expired until renewed."""
        self._expire_from = self._clock.monotonic() + get_config().settings.lease_seconds

"""The loop that publishes what is due, and ends the tries of workers that are gone.

Any number may run at once, in workers and elsewhere: the store hands each row to one of them.
"""

from __future__ import annotations

from django.db import DatabaseError, InterfaceError, close_old_connections

from . import outbox
from .broker.publisher import get_publisher
from .clock import SYSTEM_CLOCK, Clock
from .conf import get_config
from .looping import repeat_in_own_thread
from .store.dispatching import expire_leases, next_due, take_due
from .store.enqueue import ref
from .store.groups import expire_groups
from .telemetry import emit

BATCH = 500
IDLE_SECONDS = 0.5
OUTAGE_SECONDS = 1.0


class Dispatcher:
    """One process's dispatcher. `run` is the loop; `pass_once` is one turn of it, for whoever has no loop."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._is_down = False
        self._last_pass = float("-inf")
        self._expire_from = 0.0
        self._wait_a_lease()

    async def run(self) -> None:
        """Pass after pass, until cancelled. The database is spoken to in a thread of its own."""
        await repeat_in_own_thread("i3tasks-dispatcher", self.pass_once)

    def pass_once(self) -> float:
        """Publish what is due and expire dead leases. Gives the seconds until there may be more to do."""
        close_old_connections()
        self._last_pass = self._clock.monotonic()
        try:
            wait = self._pass()
        except (DatabaseError, InterfaceError) as error:
            self._go_down(error)
            return OUTAGE_SECONDS
        except Exception as error:  # a bug; the loop is everybody's net and goes on
            emit("internal_error", where="dispatcher", error=repr(error), exc_info=error)
            return OUTAGE_SECONDS
        self._is_down = False
        return wait

    def seconds_since_pass(self) -> float:
        """How long ago the last pass began; infinite before the first."""
        return self._clock.monotonic() - self._last_pass

    def _pass(self) -> float:
        if self._clock.monotonic() >= self._expire_from:
            outbox.send(expire_leases(BATCH, clock=self._clock), clock=self._clock)
        outbox.send(map(ref, expire_groups(BATCH)), clock=self._clock)
        # While the broker is away one try at a time is enough to find out when it is back; each one taken is
        # put off by the grace period.
        batch = BATCH if get_publisher().is_available else 1
        due = take_due(batch)
        outbox.send(due, clock=self._clock)
        if len(due) >= BATCH:
            return 0.0
        return IDLE_SECONDS if batch == 1 else _seconds_until_next()

    def _go_down(self, error: Exception) -> None:
        self._wait_a_lease()
        if not self._is_down:
            self._is_down = True
            emit("dispatch_failed", error=str(error))

    def _wait_a_lease(self) -> None:
        """After an outage of the database every lease looks dead: give their holders the time to renew them."""
        self._expire_from = self._clock.monotonic() + get_config().settings.lease_seconds


def _seconds_until_next() -> float:
    earliest = next_due()
    if earliest is None:
        return IDLE_SECONDS
    database_time, dispatch_at = earliest
    return min(max((dispatch_at - database_time).total_seconds(), 0.01), IDLE_SECONDS)

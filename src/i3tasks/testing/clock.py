"""The time of a test: the system's, moved on by `advance`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta

from ..core.clock import SYSTEM_CLOCK, Clock, going_by

_ahead = timedelta(0)
_moved = ExitStack()


def advance(by: timedelta) -> None:
    """Move the clock on that delays, retries, leases, schedules and deadlines of i3tasks look at.

    Django's `timezone.now()` and the time that bodies see stay as they are. It ends with the test where the pytest
    plugin or `TestMixin` is in use; elsewhere call `reset_clock`. Raises ValueError for a time in the past.
    """
    global _ahead
    if by < timedelta(0):
        raise ValueError(f"advance() moves the clock forward only, not by {by}. Call reset_clock() to go back.")
    ahead = _ahead + by
    reset_clock()
    _ahead = ahead
    _moved.enter_context(going_by(moved_clock()))


def reset_clock() -> None:
    """Undo every `advance`."""
    global _ahead
    _ahead = timedelta(0)
    _moved.close()


def moved_clock() -> Clock:
    """The clock of the test, which is the database's, too: inside a transaction, PostgreSQL's own stands still."""
    return replace(
        SYSTEM_CLOCK,
        now=_now,
        monotonic=lambda: SYSTEM_CLOCK.monotonic() + _ahead.total_seconds(),
        database_now=_now,
    )


def _now() -> datetime:
    return SYSTEM_CLOCK.now() + _ahead

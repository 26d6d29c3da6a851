"""Closes database connections that no longer work before a thread of i3tasks uses them again."""

from __future__ import annotations

import select
import time
import weakref
from contextlib import suppress
from typing import Any

from django.db import DatabaseError, InterfaceError, close_old_connections, connections

IDLE_SECONDS = 30.0
"""Seconds without use after which a connection is tested by a query. Until then only its socket is checked."""

_used_at: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()


def look() -> None:
    """Close connections that are too old or were closed by the server. The next query opens new ones."""
    close_old_connections()
    close_dead()


def close_dead() -> None:
    """Close the connections of this thread that no longer work, mostly because the server has closed them."""
    now = time.monotonic()
    for connection in connections.all(initialized_only=True):
        if connection.connection is not None and not connection.in_atomic_block:
            idle = now - _used_at.get(connection, now)
            if (idle > IDLE_SECONDS or _has_news(connection.connection)) and not connection.is_usable():
                discard(connection)
            _used_at[connection] = now


def discard(connection: Any) -> None:
    """Roll back and close a connection at once. Django would keep it open until its transaction ends."""
    connection.in_atomic_block = False
    with suppress(Exception):
        connection.connection.rollback()
    with suppress(DatabaseError, InterfaceError):
        connection.close()
    del connections[connection.alias]


def _has_news(driver: Any) -> bool:
    """Whether the server has sent data without a query, such as the end of the connection. Needs no round trip."""
    if not hasattr(driver, "fileno"):
        return False
    poll = select.poll()
    try:
        poll.register(driver.fileno(), select.POLLIN | select.POLLHUP | select.POLLERR)
        return bool(poll.poll(0))
    except Exception:  # it is closed
        return True

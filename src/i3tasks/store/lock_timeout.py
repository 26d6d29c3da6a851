"""Waiting for locks of other transactions: for a short time, with an error that says so, and again where that helps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from django.db import OperationalError, connections

from ..exceptions import StoreUnavailable
from .database import alias, atomic, in_transaction, is_conflict, is_contention

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS = 3
"""How often something outside a transaction is written before it fails: each attempt is a transaction of its own."""
LONGEST_LOCK = timedelta(seconds=1)
"""How long each attempt waits for another transaction that writes the same key."""
NO_WAIT = timedelta(milliseconds=10)
BUSY = (
    "Another transaction has enqueued a call with the same key (`idempotency_key`, or a `unique` task), and has not "
    "committed yet. Call it again; and end transactions that enqueue soon after it."
)


def attempted(write: Callable[[], T]) -> T:
    """The result of `write`. Outside a transaction, StoreUnavailable or a deadlock is raised only after ATTEMPTS calls.

    Inside one there is a single attempt: the locks that another transaction waits for are kept until its end.
    """
    for _ in range(0 if in_transaction() else ATTEMPTS - 1):
        try:
            return write()
        except StoreUnavailable:
            continue
        except OperationalError as error:
            if not is_conflict(error):
                raise
    return write()


def attempting(write: Callable[P, T]) -> Callable[P, T]:
    """Make a store function that callers wait for an `attempted` one: a deadlock with them is not their concern."""

    @wraps(write)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> T:
        return attempted(partial(write, *args, **kwargs))

    return attempt


@contextmanager
def short_locks(longest_wait: timedelta, busy: str = BUSY) -> Iterator[None]:
    """A savepoint in which PostgreSQL waits for a lock no longer than that; then StoreUnavailable(busy) is raised.

    The caller's transaction stays usable after the error. SQLite's transactions wait as `timeout` says.
    """
    try:
        with atomic(savepoint=True):
            before = _set_lock_timeout(f"{longest_wait // timedelta(milliseconds=1)}ms")
            yield
            if before is not None:
                _set_lock_timeout(before)
    except OperationalError as error:
        if is_contention(error):
            raise StoreUnavailable(busy) from error
        raise


def _set_lock_timeout(value: str) -> Any:
    """Set PostgreSQL's `lock_timeout` in this transaction. Gives the value that it had; None on another database."""
    connection = connections[alias()]
    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('lock_timeout'), set_config('lock_timeout', %s, true)", [value])
        return cursor.fetchone()[0]

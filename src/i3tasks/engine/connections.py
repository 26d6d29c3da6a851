"""Keeps the database connections of a thread in order, in which one body runs after the other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db import connections
from django.db.transaction import TransactionManagementError

from ..telemetry import emit
from ..threads.connections import discard, look
from . import session_state
from .bodies import Raised, Returned, call


def call_apart(function: Callable[[], Any]) -> Returned | Raised:
    """Run a sync body in a thread for bodies. A body that leaves a transaction open has failed: no code commits it."""
    look()
    answer = call(function)
    return left_open(answer) if clean() else answer


def left_open(answer: Returned | Raised) -> Raised:
    """Return the error of a body that has left a transaction open: its own, if it raised one."""
    error = TransactionManagementError("The body left a transaction open. What it wrote there was rolled back.")
    if isinstance(answer, Raised):
        return answer
    return Raised(error)


def tidy() -> None:
    """Prepare this thread's connections for the next body: working, without transaction or session state."""
    try:
        session_state.settle_doubts(has_ended=True)
        clean()
        look()
    except Exception as error:  # no exception of a driver must end the thread
        emit("internal_error", where="connections", error=repr(error), exc_info=error)
        for connection in connections.all(initialized_only=True):
            del connections[connection.alias]


def holds_state() -> bool:
    """Whether a connection of this thread is in a transaction or has session state, so no other body may use it."""
    opened = connections.all(initialized_only=True)
    return any(is_in_transaction(item) or session_state.is_known(item) for item in opened)


def clean() -> bool:
    """End transactions and session state on this thread's connections. Return whether a transaction was open."""
    left = False
    for connection in connections.all(initialized_only=True):
        is_left = is_in_transaction(connection)
        if is_left or session_state.is_known(connection):
            _end(connection)
        left = left or is_left
    if left:
        emit("transaction_left_open")
    return left


def is_in_transaction(connection: Any) -> bool:
    """Whether a transaction is open, whether begun by atomic(), set_autocommit(False) or a plain BEGIN."""
    driver = connection.connection
    if connection.in_atomic_block or driver is None:
        return bool(connection.in_atomic_block)
    if connection.autocommit != connection.settings_dict.get("AUTOCOMMIT", True):
        return True
    if connection.vendor == "sqlite":
        try:
            return bool(driver.in_transaction)
        except Exception:  # closed by the body itself
            return False
    return driver.info.transaction_status in (1, 2, 3)  # libpq's: active, in a transaction, in a failed one


def _end(connection: Any) -> None:
    """Close the connection, without a transaction and without session state: a connection pool would pass it on."""
    with suppress(Exception):  # a driver may raise anything: it may be closed
        connection.connection.rollback()
        session_state.restore(connection)
        if connection.vendor == "postgresql":
            with connection.connection.cursor() as cursor:
                cursor.execute("DISCARD ALL")
    discard(connection)
    session_state.forget(connection)

"""The database connections of a thread in which one body runs after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import close_old_connections, connections
from django.db.transaction import TransactionManagementError

from ..telemetry import emit
from .bodies import Raised, Returned, call


def call_apart(function: Callable[[], Any]) -> Returned | Raised:
    """`call`, in a thread of bodies. One that ends inside a transaction, with nobody left to commit it, has failed."""
    answer = call(function)
    if roll_back_open() and isinstance(answer, Returned):
        return Raised(
            TransactionManagementError("The body left a transaction open. What it wrote there was rolled back.")
        )
    return answer


def tidy() -> None:
    """What no body uses now is as the next one wants it: good, and in no transaction."""
    if roll_back_open():
        emit("transaction_left_open")
    close_old_connections()


def roll_back_open() -> bool:
    """Give up those connections that are in a transaction; Django would keep them for its end. Says if there were."""
    left = [connection for connection in connections.all(initialized_only=True) if connection.in_atomic_block]
    for connection in left:
        connection.in_atomic_block = False
        connection.close()
        del connections[connection.alias]
    return bool(left)

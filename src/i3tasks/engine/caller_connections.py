"""The caller's database connections, kept from what a body that runs in the caller's thread leaves open."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError, Error, connections
from django.db.transaction import TransactionManagementError

from ..telemetry import emit
from .bodies import Raised, Returned
from .connections import is_in_transaction, left_open

_numbers = itertools.count(1)


class CallersConnections:
    """The state of the connections of the caller's thread before a body, to which they return after it."""

    def __init__(self) -> None:
        self._states = {connection: _State.of(connection) for connection in connections.all(initialized_only=True)}

    def take_back(self, answer: Returned | Raised) -> Returned | Raised:
        """Return what the body came to. A body that left a transaction open or broken has failed.

        What such a body wrote is rolled back; a transaction of the caller goes on as it was before the body.
        """
        left = False
        for connection in connections.all(initialized_only=True):
            state = self._states.get(connection) or _State.of_new(connection)
            try:
                left |= state.take_back(connection, answer)
            except DatabaseError as error:
                answer = answer if isinstance(answer, Raised) else Raised(_ended(error))
        if left:
            emit("transaction_left_open")
        return left_open(answer) if left else answer


def _ended(error: DatabaseError) -> TransactionManagementError:
    ended = TransactionManagementError("The body ended a transaction of its caller.")
    ended.__cause__ = error
    return ended


@dataclass(frozen=True, slots=True)
class _State:
    """A connection as it was before the body."""

    is_open: bool  # the caller's: a transaction, or a connection without autocommit
    is_broken: bool
    autocommit: bool
    in_atomic_block: bool
    atomic_blocks: tuple[Any, ...]
    savepoint_ids: tuple[Any, ...]
    hooks: int  # functions that wait for the commit
    savepoint: str | None

    @classmethod
    def of(cls, connection: Any) -> _State:
        if connection.connection is None and not connection.in_atomic_block:
            return cls.of_new(connection)
        is_broken = _is_broken(connection)
        return cls(
            is_open=is_in_transaction(connection) or not connection.autocommit,
            is_broken=is_broken,
            autocommit=connection.autocommit,
            in_atomic_block=connection.in_atomic_block,
            atomic_blocks=tuple(connection.atomic_blocks),
            savepoint_ids=tuple(connection.savepoint_ids),
            hooks=len(connection.run_on_commit),
            savepoint=None if is_broken else _savepoint(connection),
        )

    @classmethod
    def of_new(cls, connection: Any) -> _State:
        """The state of a connection that was not open."""
        autocommit = connection.settings_dict.get("AUTOCOMMIT", True)
        return cls(False, False, autocommit, False, (), (), 0, None)

    def take_back(self, connection: Any, answer: Returned | Raised) -> bool:
        """Bring the connection back to this state. Returns whether the body left a transaction open or broken.

        Raises DatabaseError if it can't, because the body ended the caller's transaction.
        """
        if self.is_broken:
            return False
        is_broken = _is_broken(connection)
        left = self._is_left_open(connection) or (is_broken and isinstance(answer, Returned))
        if left or is_broken or (self.is_open and isinstance(answer, Raised) and isinstance(answer.error, Error)):
            self._undo(connection)
        elif self.savepoint is not None:
            _execute(connection, connection.ops.savepoint_commit_sql(self.savepoint))
        return left

    def _is_left_open(self, connection: Any) -> bool:
        if not self.is_open:
            return is_in_transaction(connection)
        return (
            connection.autocommit != self.autocommit
            or tuple(connection.atomic_blocks) != self.atomic_blocks
            or tuple(connection.savepoint_ids) != self.savepoint_ids
        )

    def _undo(self, connection: Any) -> None:
        """Roll back what the body wrote, and drop the atomic blocks and the commit hooks that it added."""
        connection.in_atomic_block = self.in_atomic_block
        connection.atomic_blocks[:] = self.atomic_blocks
        connection.savepoint_ids[:] = self.savepoint_ids
        del connection.run_on_commit[self.hooks :]
        connection.needs_rollback = False
        if self.savepoint is None:
            self._roll_back(connection)
            return
        try:
            _execute(connection, connection.ops.savepoint_rollback_sql(self.savepoint))
            _execute(connection, connection.ops.savepoint_commit_sql(self.savepoint))
        except DatabaseError:
            connection.needs_rollback = connection.in_atomic_block
            raise

    def _roll_back(self, connection: Any) -> None:
        """Roll the whole transaction back: the caller wrote nothing in it."""
        try:
            with connection.wrap_database_errors:
                connection.connection.rollback()
            if connection.autocommit != self.autocommit:
                connection.set_autocommit(self.autocommit)
        except Exception:  # it is of no use any more: the next query opens a new one
            connection.closed_in_transaction = False
            with suppress(Exception):
                connection.close()


def _is_broken(connection: Any) -> bool:
    """Return whether Django or the database accepts nothing but a rollback."""
    if connection.needs_rollback:
        return True
    driver = connection.connection
    return driver is not None and connection.vendor == "postgresql" and driver.info.transaction_status == 3


def _savepoint(connection: Any) -> str | None:
    """Make a savepoint, which Django does inside of atomic() only. None if the database has begun no transaction."""
    driver = connection.connection
    begun = driver.in_transaction if connection.vendor == "sqlite" else driver.info.transaction_status == 2
    if not begun:
        return None
    name = f"i3tasks_{next(_numbers)}"
    _execute(connection, connection.ops.savepoint_create_sql(name))
    return name


def _execute(connection: Any, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)

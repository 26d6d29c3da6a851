"""The database of the rows, its transactions, and its locks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.apps import apps
from django.core.exceptions import EmptyResultSet
from django.db import InterfaceError, OperationalError, connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, ExpressionWrapper, Model, QuerySet, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from ..core.clock import Clock
from ..models import TaskExecution

CONFLICT = frozenset({"40001", "40P01"})
"""PostgreSQL's states of serialization failure and deadlock: the transaction was ended for another one's sake."""
CONTENTION = CONFLICT | {"55P03"}
"""The same, and the state of a lock that was not granted in time."""

MANY = 20
"""Rows from which on PostgreSQL may prefer to read a whole table; below, one more statement would cost more."""
# What has no index to go by counts as most expensive then, and must not be compiled for that.
_NOT_BY_INDEX = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit")
BY_INDEX = "SELECT " + ", ".join(f"set_config('{name}', 'off', true)" for name in _NOT_BY_INDEX)
"""Has PostgreSQL look up given rows one by one, until the transaction ends.

For some hundred of them it would read and hash all of a table of tens of thousands: in each statement, and more slowly
the larger the table is, until it is analyzed.
"""

Row = TypeVar("Row", bound=Model)
Rows = Any
"""A QuerySet whose rows may carry annotations, which have no static type."""
Instant = datetime | Combinable
"""The `now` of a store function: an instant, or an expression that the database computes."""
DATABASE_TIME: Instant = Now()
"""The time of the transaction by the database's clock, which is one for all processes."""


def time_of(clock: Clock) -> Instant:
    """The `now` to pass to the store for those who go by `clock`."""
    return DATABASE_TIME if clock.database_now is None else clock.database_now()


def alias() -> str:
    """The database of all i3tasks tables."""
    return router.db_for_write(TaskExecution)


class _Writing(transaction.Atomic):
    """A transaction that takes SQLite's write lock when it begins, with any `transaction_mode`.

    As Django opens SQLite by default, a transaction that reads first and writes later fails at once with "database is
    locked" when another one has written in between, without waiting for the timeout. One that begins by writing waits
    instead.
    """

    _own: BaseDatabaseWrapper | None = None  # a connection for this transaction alone
    _callers: BaseDatabaseWrapper

    def __enter__(self) -> None:
        try:
            self._begin()
        except OperationalError as error:
            self._callers = connections[alias()]
            if self._callers.in_atomic_block or not _reads_the_past(self._callers, error):
                raise
            self._own = connections[alias()] = self._callers.copy()
            try:
                self._begin()
            except BaseException:
                self._give_back()
                raise

    def __exit__(self, *error: Any) -> None:
        try:
            super().__exit__(*error)
        finally:
            self._give_back()

    def _begin(self) -> None:
        connection = connections[alias()]
        is_part_of_another = connection.in_atomic_block
        super().__enter__()
        if connection.vendor == "sqlite" and not is_part_of_another and not _begins_immediately(connection):
            try:
                with connection.cursor() as cursor:
                    table = connection.ops.quote_name(TaskExecution._meta.db_table)
                    cursor.execute(f"UPDATE {table} SET id = id WHERE 0")
            except BaseException:
                super().__exit__(*sys.exc_info())
                raise

    def _give_back(self) -> None:
        if self._own is not None:
            self._own.close()
            connections[self._callers.alias], self._own = self._callers, None


def _reads_the_past(connection: Any, error: OperationalError) -> bool:
    """Whether SQLite refused because the caller is in the middle of reading rows, and others have written since.

    No wait would help. `for row in rows.iterator(): send.delay(row.pk)` would fail whenever a worker writes, too.
    """
    if connection.vendor != "sqlite":
        return False
    code = getattr(error.__cause__, "sqlite_errorcode", None)
    return code == connection.Database.SQLITE_BUSY_SNAPSHOT and not connection.is_in_memory_db()


def _begins_immediately(connection: Any) -> bool:
    return str(getattr(connection, "transaction_mode", None)).upper() in ("IMMEDIATE", "EXCLUSIVE")


def atomic(*, savepoint: bool = False) -> transaction.Atomic:
    """A transaction on that database; inside another one a part of it, or a savepoint, which an error leaves intact."""
    return _Writing(alias(), savepoint, durable=False)


@contextmanager
def by_itself() -> Iterator[None]:
    """For a statement outside of transactions. A connection that is lost is closed, as at the end of `atomic`."""
    try:
        yield
    except (OperationalError, InterfaceError):
        connection = connections[alias()]
        if connection.connection is not None and not connection.is_usable():
            connection.close()  # so that the next query opens one
        raise


def in_transaction() -> bool:
    """Whether what this thread writes there is part of a transaction that its caller will end."""
    connection = connections[alias()]
    return bool(connection.in_atomic_block) or not connection.get_autocommit()


def is_unmigrated() -> bool:
    """Whether migrations of i3tasks wait to be applied. Raises DatabaseError without an answer."""
    from django.db.migrations.executor import MigrationExecutor  # here, because few processes need it

    executor = MigrationExecutor(connections[alias()])
    leaves = [node for node in executor.loader.graph.leaf_nodes() if node[0] == TaskExecution._meta.app_label]
    return bool(executor.migration_plan(leaves))


def recorded_migrations(database: str) -> set[tuple[str, str]]:
    """The applied migrations of all apps, by app and name, as that database has recorded them.

    Without Django's `MigrationRecorder`, which would load what migrations are made of for good.
    """
    connection = connections[database]
    with connection.cursor() as cursor:
        if "django_migrations" not in connection.introspection.table_names(cursor):
            return set()
        cursor.execute("SELECT app, name FROM django_migrations")
        return set(cursor.fetchall())


def missing_tables() -> list[str]:
    """The tables of i3tasks that the database does not show. Raises DatabaseError without an answer."""
    there = connections[alias()].introspection.table_names(include_views=True)
    models = apps.get_app_config(TaskExecution._meta.app_label).get_models()
    return sorted({model._meta.db_table for model in models} - {*there})


def rows(model: type[Row]) -> QuerySet[Row]:
    """All rows of `model`, from that database."""
    return model._default_manager.using(alias())


def locked(queryset: Rows, *, wait: bool) -> Rows:
    """Lock the rows in primary key order, without conflicting with foreign keys that others are inserting.

    Rows that another transaction has locked are left out, or waited for with `wait`. SQLite's transactions
    exclude each other anyway.
    """
    queryset = queryset.order_by("pk")
    if connections[queryset.db].features.has_select_for_no_key_update:
        return queryset.select_for_update(skip_locked=not wait, no_key=True)
    return queryset


def unlocked(queryset: Rows, *, to_delete: bool = False) -> list[Any]:
    """The rows, in the queryset's order, that no other transaction has locked; locked for us."""
    if connections[queryset.db].features.has_select_for_update_skip_locked:
        queryset = queryset.select_for_update(skip_locked=True, of=("self",), no_key=not to_delete)
    return list(queryset)


def unlocked_values(queryset: Rows, *columns: Any) -> list[tuple[Any, ...]]:
    """The same as tuples of these columns: rows of joined tables are not locked, which Django's own form would do."""
    connection = connections[queryset.db]
    values = queryset.values_list(*columns)
    if not connection.features.has_select_for_update_skip_locked:
        return list(values)
    try:
        statement, parameters = values.query.get_compiler(connection=connection).as_sql()
    except EmptyResultSet:
        return []
    table = connection.ops.quote_name(queryset.model._meta.db_table)
    lock = connection.ops.for_update_sql(skip_locked=True, of=(table,), no_key=True)
    with connection.cursor() as cursor:
        cursor.execute(f"{statement} {lock}", parameters)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


@contextmanager
def in_index_order() -> Iterator[None]:
    """A part of a transaction in which PostgreSQL reads the first rows of an order by an index that has it.

    Where millions of rows have ended, PostgreSQL expects far fewer waiting rows than there are (it multiplies the
    selectivities of correlated columns), and would read and sort hundreds of thousands to find the first hundred.
    """
    connection = connections[alias()]
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('enable_sort'), set_config('enable_sort', 'off', true)")
        before, _ = cursor.fetchone()
        yield
        cursor.execute("SELECT set_config('enable_sort', %s, true)", [before])


def join_by_index(count: int) -> None:
    """Have PostgreSQL look up so many given rows one by one, until the transaction ends."""
    connection = connections[alias()]
    if count >= MANY and connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(BY_INDEX)


def is_contention(error: BaseException) -> bool:
    """Whether the database gave up on a lock (deadlock, serialization failure, `lock_timeout`), which is no outage."""
    state = getattr(error.__cause__, "sqlstate", None) or ""
    return state in CONTENTION


def is_conflict(error: BaseException) -> bool:
    """Whether the database has ended this transaction so that another one could go on: made again, it may succeed."""
    return (getattr(error.__cause__, "sqlstate", None) or "") in CONFLICT


def before(now: Instant, age: timedelta) -> Any:
    """The instant that is so long before now."""
    return now - age if isinstance(now, datetime) else Now() - age


def with_database_time(queryset: Rows, now: Instant = DATABASE_TIME) -> Rows:
    """Add the time to each row, as `database_time`."""
    moment = Value(now) if isinstance(now, datetime) else now
    return queryset.annotate(database_time=ExpressionWrapper(moment, output_field=DateTimeField()))


def database_time(row: Any) -> datetime:
    """The time that `with_database_time` read with `row`."""
    value: datetime = row.database_time
    return value

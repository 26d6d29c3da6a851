"""Empties the test database after a test that commits, in a fraction of the time of Django's `flush`.

`flush` truncates each table, which costs PostgreSQL a file apiece, and fills in content types and permissions anew.
"""

from typing import Any

from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connections, transaction
from django.test import TransactionTestCase

FILLED_IN_BY_DJANGO = {ContentType._meta.db_table, Permission._meta.db_table}
LARGE = 1_000_000
"""Bytes of a table that is truncated all the same: what is deleted stays in its file for a while."""


def empty_databases(case: TransactionTestCase) -> None:
    """What `TransactionTestCase._fixture_teardown` is for."""
    for name in case._databases_names(include_mirrors=False):  # type: ignore[attr-defined]
        with transaction.atomic(using=name), connections[name].cursor() as cursor:
            for statement in _statements(connections[name], cursor):
                cursor.execute(statement)


def _statements(connection: Any, cursor: Any) -> list[str]:
    tables = set(connection.introspection.django_table_names(only_existing=True)) - FILLED_IN_BY_DJANGO
    if connection.vendor != "postgresql":
        return [f'DELETE FROM "{table}"' for table in sorted(tables)]
    cursor.execute(
        "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relkind = 'r' AND relname = ANY(%s)"
        " AND relnamespace = current_schema()::regnamespace AND pg_relation_size(oid) > 0 ORDER BY relname",
        [sorted(tables)],
    )
    sizes = dict(cursor.fetchall())
    large = [f'"{table}"' for table, size in sizes.items() if size > LARGE]
    truncated = [f"TRUNCATE {', '.join(large)} CASCADE"] if large else []
    return truncated + [f'DELETE FROM "{table}"' for table, size in sizes.items() if size <= LARGE]

"""Common parts of the migrations. (A leading underscore keeps Django from reading this as a migration.)"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError
from django.db import OperationalError, migrations

LOCK_TIMEOUT = "5s"
"""How long a change of a table waits for other transactions. Meanwhile it holds up all later transactions."""
LOCK_NOT_AVAILABLE = "55P03"
LOCKED = (
    "{} could not get its lock: another transaction has been using a table of i3tasks for too long. Nothing is lost and "
    "nothing needs cleaning: end that transaction (SELECT pid, xact_start, query FROM pg_stat_activity WHERE "
    "xact_start IS NOT NULL ORDER BY xact_start), then run migrate again."
)


class Migration(migrations.Migration):
    """A migration that waits for locks for a short time, and says what to do when it can't get one.

    A change of a table needs a lock that nothing else may hold. While it waits, all later statements on the table wait
    behind it, so it gives up after LOCK_TIMEOUT (`lock_timeout` of the connection, if one is set). Indexes are built
    without such a lock (`atomic = False`) and may wait.
    """

    def apply(self, project_state: Any, schema_editor: Any, collect_sql: bool = False) -> Any:
        with _patient(self, schema_editor, collect_sql):
            return super().apply(project_state, schema_editor, collect_sql)

    def unapply(self, project_state: Any, schema_editor: Any, collect_sql: bool = False) -> Any:
        with _patient(self, schema_editor, collect_sql):
            return super().unapply(project_state, schema_editor, collect_sql)


class AddIndexOnline(migrations.AddIndex):
    """AddIndex without blocking writers on PostgreSQL. The migration needs `atomic = False`.

    It can be interrupted and repeated: an index that is there is skipped, one that was left half built is built anew.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model) and _is_missing(
            schema_editor, model, self.index.name
        ):
            schema_editor.add_index(model, self.index, **_concurrently(schema_editor))

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = from_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model) and _is_there(
            schema_editor, model, self.index.name
        ):
            schema_editor.remove_index(model, self.index, **_concurrently(schema_editor))


class AddConstraintOnline(migrations.AddConstraint):
    """AddConstraint of a partial UniqueConstraint, which is an index, under the conditions of AddIndexOnline."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model) and _is_missing(
            schema_editor, model, self.constraint.name
        ):
            sql = str(self.constraint.create_sql(model, schema_editor))
            if _concurrently(schema_editor):
                sql = sql.replace("CREATE UNIQUE INDEX", "CREATE UNIQUE INDEX CONCURRENTLY", 1)
            schema_editor.execute(sql, params=None)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = from_state.apps.get_model(app_label, self.model_name)
        if _is_there(schema_editor, model, self.constraint.name):
            super().database_backwards(app_label, schema_editor, from_state, to_state)


class DropIndexOfForeignKeyOnline(migrations.AlterField):
    """AlterField to a foreign key with `db_index=False`, under the conditions of AddIndexOnline.

    It drops that index alone, where AlterField would have SQLite copy the whole table.
    """

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model):
            concurrently = "CONCURRENTLY " if _concurrently(schema_editor) else ""
            name = schema_editor.quote_name(self._index_name(schema_editor, model))
            schema_editor.execute(f"DROP INDEX {concurrently}IF EXISTS {name}", params=None)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if self.allow_migrate_model(schema_editor.connection.alias, model) and _is_missing(
            schema_editor, model, self._index_name(schema_editor, model)
        ):
            statement = str(schema_editor._create_index_sql(model, fields=[model._meta.get_field(self.name)]))
            if _concurrently(schema_editor):
                statement = statement.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY", 1)
            schema_editor.execute(statement, params=None)

    def _index_name(self, schema_editor: Any, model: Any) -> str:
        """The name that Django gives to a foreign key's index."""
        name: str = schema_editor._create_index_name(model._meta.db_table, [model._meta.get_field(self.name).column])
        return name


@contextmanager
def _patient(migration: Migration, schema_editor: Any, collect_sql: bool) -> Iterator[None]:
    """Limit the waits for locks, and translate the error of one that took too long."""
    connection = schema_editor.connection
    if connection.vendor == "postgresql" and migration.atomic and not collect_sql:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('lock_timeout')")
            if cursor.fetchone() == ("0",):
                cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    try:
        yield
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) == LOCK_NOT_AVAILABLE:
            raise CommandError(LOCKED.format(f"{migration.app_label}.{migration.name}")) from error
        raise


def _concurrently(schema_editor: Any) -> dict[str, bool]:
    return {"concurrently": True} if schema_editor.connection.vendor == "postgresql" else {}


def _is_missing(schema_editor: Any, model: Any, name: str) -> bool:
    """Whether the index is to be built. One that PostgreSQL calls invalid, left by an interrupted build, is dropped."""
    if schema_editor.collect_sql or not _is_there(schema_editor, model, name):
        return True
    if not _is_invalid(schema_editor.connection, model, name):
        return False
    schema_editor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema_editor.quote_name(name)}", params=None)
    return True


def _is_there(schema_editor: Any, model: Any, name: str) -> bool:
    if schema_editor.collect_sql:
        return True
    connection = schema_editor.connection
    with connection.cursor() as cursor:
        return name in connection.introspection.get_constraints(cursor, model._meta.db_table)


def _is_invalid(connection: Any, model: Any, name: str) -> bool:
    if connection.vendor != "postgresql":
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT NOT (i.indisvalid AND i.indisready) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " WHERE i.indrelid = %s::regclass AND c.relname = %s",
            [connection.ops.quote_name(model._meta.db_table), name],
        )
        found = cursor.fetchone()
    return found is not None and found[0]

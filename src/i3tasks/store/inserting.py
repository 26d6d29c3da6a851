"""New rows without the ORM, which would make, check and take apart an instance of each column.

On PostgreSQL and SQLite an execution and its first try are written by statements that are made once; elsewhere it is
`bulk_create`. The instances that callers get are put together from the values, and no signal of Django's is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import DateTimeField, Field, UUIDField
from django.db.models.base import ModelState

from ..models import StoredJSON, TaskExecution, TaskExecutionTry
from .database import alias, rows
from .postgres.inserting import insert_many, insert_one
from .postgres.statements import are_known, document

Columns = dict[str, Any]
"""The values of a row's columns, by the names of a model's attributes. Each row of a list has the same."""


def insert_rows(executions: Sequence[Columns], tries: Sequence[Columns]) -> list[TaskExecutionTry]:
    """Write an execution and a try of it for each pair, in the caller's transaction."""
    if are_known():
        ids = [insert_one(executions[0], tries[0])] if len(executions) == 1 else insert_many(executions, tries)
    elif connections[alias()].vendor == "sqlite":
        ids = _insert_on_sqlite(executions, tries)
    else:
        return _insert_by_orm(executions, tries)
    return _instances(executions, tries, ids)


def _insert_by_orm(executions: Sequence[Columns], tries: Sequence[Columns]) -> list[TaskExecutionTry]:
    written = rows(TaskExecution).bulk_create([TaskExecution(**columns) for columns in executions])
    return rows(TaskExecutionTry).bulk_create(
        TaskExecutionTry(task_execution=execution, **columns) for execution, columns in zip(written, tries, strict=True)
    )


# ---------------------------------------------------------------------------------------------------------- on SQLite


def _insert_on_sqlite(executions: Sequence[Columns], tries: Sequence[Columns]) -> list[tuple[int, int]]:
    # The first row says where the ids begin; until the transaction ends, no other writes rows between these.
    first = _insert_in_order(TaskExecution, executions)
    of_executions = [{"task_execution_id": first + number, **columns} for number, columns in enumerate(tries)]
    first_try = _insert_in_order(TaskExecutionTry, of_executions)
    return [(first + number, first_try + number) for number in range(len(tries))]


def _insert_in_order(model: Any, table: Sequence[Columns]) -> int:
    """Insert the rows with ids that follow each other; give the first one's."""
    statement, with_id = _sqlite_statements(model, tuple(table[0]))
    adapt = connections[alias()].ops.adapt_datetimefield_value
    kinds = [model._meta.get_field(name) for name in table[0]]
    values = [[_adapted(value, kind, adapt) for value, kind in zip(row.values(), kinds, strict=True)] for row in table]
    with connections[alias()].cursor() as cursor:
        cursor.execute(statement, values[0])
        first: int = cursor.lastrowid
        if len(values) > 1:
            cursor.executemany(with_id, [[first + number, *row] for number, row in enumerate(values[1:], start=1)])
    return first


@cache
def _sqlite_statements(model: Any, names: tuple[str, ...]) -> tuple[str, str]:
    columns = [f'"{model._meta.get_field(name).column}"' for name in names]

    def insert(*columns: str) -> str:
        places = ", ".join(["%s"] * len(columns))
        return f'INSERT INTO "{model._meta.db_table}" ({", ".join(columns)}) VALUES ({places})'

    return insert(*columns), insert('"id"', *columns)


def _adapted(value: Any, kind: Field[Any, Any], adapt: Any) -> Any:
    if value is None:
        return None
    if isinstance(kind, StoredJSON):
        return document(value)
    if isinstance(kind, DateTimeField):
        return adapt(value)
    return value.hex if isinstance(kind, UUIDField) and isinstance(value, UUID) else value


# -------------------------------------------------------------------------------------------------------- instances


def _instances(
    executions: Sequence[Columns], tries: Sequence[Columns], ids: Sequence[tuple[int, int]]
) -> list[TaskExecutionTry]:
    using, made = alias(), []
    for columns, of_try, (execution_id, try_id) in zip(executions, tries, ids, strict=True):
        execution = _instance(TaskExecution, {"id": execution_id, **columns}, using)
        task_try = _instance(TaskExecutionTry, {"id": try_id, "task_execution_id": execution_id, **of_try}, using)
        task_try._state.fields_cache = {"task_execution": execution}
        made.append(task_try)
    return made


def _instance(model: Any, columns: Mapping[str, Any], using: str) -> Any:
    row = model.__new__(model)
    row.__dict__.update(_blank(model), **columns)
    row._state = state = ModelState()
    state.adding = False
    state.db = using
    return row


@cache
def _blank(model: Any) -> dict[str, Any]:
    """The default values of a new row's columns, but for values that are made anew for each row, such as an id."""
    made_anew = {field for field in model._meta.concrete_fields if field.has_default() and callable(field.default)}
    return {field.attname: field.get_default() for field in model._meta.concrete_fields if field not in made_anew}

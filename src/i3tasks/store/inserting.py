"""New rows without the ORM, which would make, check and take apart an instance of each column.

On PostgreSQL and SQLite an execution and its first try are written by statements that are made once; elsewhere it is
`bulk_create`. Callers get instances that are put together from the values, and no signal of Django's is sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import repeat
from typing import TYPE_CHECKING, Any, overload
from uuid import UUID

from django.db import connections
from django.db.models import DateTimeField, Field
from django.db.models.base import ModelState

from ..models import StoredJSON, TaskExecution, TaskExecutionTry
from .database import alias, atomic, rows
from .postgres.inserting import insert_calls
from .postgres.statements import are_known, document
from .tables import Columns, Table

if TYPE_CHECKING:
    from .requests import TryRef

OF_EXECUTIONS = (
    *("created_at", "updated_at", "uuid", "task_path", "task_name", "task_args", "task_kwargs", "queue_name"),
    *("priority", "options", "chain", "task_group_id", "group_index", "trace_context", "previous_id"),
    *("previous_group_id", "part_of_id"),
)
OF_TRIES = (
    *("created_at", "updated_at", "asked_at", "try_number", "is_completed", "is_success", "run_after", "dispatch_at"),
    *("queue_name", "priority", "publish_count"),
)
Ids = Sequence[tuple[int, int]]
"""Of executions, each with that of its try."""


class NewTries(Sequence[TaskExecutionTry]):
    """The tries that were written, in the order of their calls. An instance is made when it is asked for."""

    def __init__(self, table: Table, ids: Ids) -> None:
        self._table, self._ids, self._using = table, ids, alias()
        self._made: dict[int, TaskExecutionTry] = {}

    def __len__(self) -> int:
        return self._table.count

    @overload
    def __getitem__(self, place: int) -> TaskExecutionTry: ...
    @overload
    def __getitem__(self, place: slice) -> list[TaskExecutionTry]: ...
    def __getitem__(self, place: int | slice) -> TaskExecutionTry | list[TaskExecutionTry]:
        if isinstance(place, slice):
            return [self[each] for each in range(len(self))[place]]
        place = range(len(self))[place]
        return self._made.get(place) or self._made.setdefault(place, self._instance(place))

    def _instance(self, place: int) -> TaskExecutionTry:
        row, (execution_id, try_id) = self._table.row(place), self._ids[place]
        execution = _instance(TaskExecution, _execution_columns(row), execution_id, self._using)
        of_try = {"task_execution_id": execution_id, **_picked(row, OF_TRIES)}
        task_try: TaskExecutionTry = _instance(TaskExecutionTry, of_try, try_id, self._using)
        state: Any = task_try._state  # a descriptor gives `fields_cache` at its first use, which may be set
        state.fields_cache = {"task_execution": execution}
        return task_try

    def due(self) -> list[TryRef]:
        """The tries that are due at once, without an instance of each."""
        from .requests import TryRef  # late: a process that only defines tasks needs none

        names = ("task_path", "task_name", "queue_name", "dispatch_at", "trace_context", "priority")
        columns = zip(*map(self._table.column, names), map(bool, self._table.column("publish_count")), strict=True)
        waits = self._table.column("run_after")
        return [
            TryRef(try_id, execution_id, *facts)
            for (execution_id, try_id), wait, facts in zip(self._ids, waits, columns, strict=True)
            if wait is None
        ]


def due_refs(tries: Sequence[TaskExecutionTry]) -> list[TryRef]:
    """Those of the tries, which were written just now, that are due at once."""
    from .requests import TryRef

    if isinstance(tries, NewTries):
        return tries.due()
    return [TryRef.of_new(task_try) for task_try in tries if task_try.run_after is None]


def insert_rows(table: Table) -> Sequence[TaskExecutionTry]:
    """Write an execution and a try of it for each row, which has the columns of both: all of them, or none.

    In the caller's transaction. Without one, a statement that writes all of them needs none around it, which would take
    two round trips more.
    """
    if are_known():
        return NewTries(table, insert_calls(table, OF_EXECUTIONS, OF_TRIES))
    with atomic():
        if connections[alias()].vendor == "sqlite":
            return NewTries(table, _insert_on_sqlite(table))
        return _insert_by_orm(table)


def _insert_by_orm(table: Table) -> list[TaskExecutionTry]:
    all_rows = [table.row(place) for place in range(table.count)]
    executions = rows(TaskExecution).bulk_create([TaskExecution(**_execution_columns(row)) for row in all_rows])
    return rows(TaskExecutionTry).bulk_create(
        TaskExecutionTry(task_execution=execution, **_picked(row, OF_TRIES))
        for execution, row in zip(executions, all_rows, strict=True)
    )


# ---------------------------------------------------------------------------------------------------------- on SQLite


def _insert_on_sqlite(table: Table) -> Ids:
    # The first row says where the ids begin; until the transaction ends, no other writes rows between these.
    first = _insert_in_order(TaskExecution, table, OF_EXECUTIONS, {})
    executions = range(first, first + table.count)
    first_try = _insert_in_order(TaskExecutionTry, table, OF_TRIES, {"task_execution_id": executions})
    return list(zip(executions, range(first_try, first_try + table.count), strict=True))


def _insert_in_order(model: Any, table: Table, names: tuple[str, ...], known: Mapping[str, Sequence[Any]]) -> int:
    """Insert the rows with ids that follow each other; give the first one's."""
    statement, with_id = _sqlite_statements(model, (*known, *names))
    values = zip(*known.values(), *(_adapted(model, table, name) for name in names), strict=False)
    with connections[alias()].cursor() as cursor:
        cursor.execute(statement, next(values))
        first: int = cursor.lastrowid
        if table.count > 1:
            others = range(first + 1, first + table.count)
            cursor.executemany(with_id, [(pk, *row) for pk, row in zip(others, values, strict=False)])
    return first


@cache
def _sqlite_statements(model: Any, names: tuple[str, ...]) -> tuple[str, str]:
    columns = [f'"{model._meta.get_field(name).column}"' for name in names]

    def insert(*columns: str) -> str:
        places = ", ".join(["%s"] * len(columns))
        return f'INSERT INTO "{model._meta.db_table}" ({", ".join(columns)}) VALUES ({places})'

    return insert(*columns), insert('"id"', *columns)


def _adapted(model: Any, table: Table, name: str) -> Iterator[Any]:
    """The values of a column as SQLite takes them; without an end if they are all the same."""
    kind = model._meta.get_field(name)
    if name in table.shared:
        return repeat(_adapt(table.shared[name], kind))
    return iter([_adapt(value, kind) for value in table.column(name)])


def _adapt(value: Any, kind: Field[Any, Any]) -> Any:
    if value is None:
        return None
    if isinstance(kind, StoredJSON):
        return document(value)
    return connections[alias()].ops.adapt_datetimefield_value(value) if isinstance(kind, DateTimeField) else value


# -------------------------------------------------------------------------------------------------------- instances


def _execution_columns(row: Columns) -> Columns:
    return {**_picked(row, OF_EXECUTIONS), "uuid": UUID(row["uuid"])}


def _picked(row: Columns, names: tuple[str, ...]) -> Columns:
    return {name: row[name] for name in names}


def _instance(model: Any, columns: Columns, pk: int, using: str) -> Any:
    row = model.__new__(model)
    row.__dict__.update(_blank(model), id=pk, **columns)
    row._state = state = ModelState()
    state.adding = False
    state.db = using
    return row


@cache
def _blank(model: Any) -> dict[str, Any]:
    """The default values of a new row's columns, but for values that are made anew for each row, such as an id."""
    made_anew = {field for field in model._meta.concrete_fields if field.has_default() and callable(field.default)}
    return {field.attname: field.get_default() for field in model._meta.concrete_fields if field not in made_anew}

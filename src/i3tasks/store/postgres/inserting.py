"""New executions with their first tries, in one statement for each few thousand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from functools import lru_cache
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db import connections

from ...models import TaskExecution, TaskExecutionTry
from ..database import alias, atomic, by_itself, in_transaction
from ..tables import Table
from .statements import EXECUTIONS, TRIES, fetched

MOST_ROWS = 2000
MOST_CHARACTERS = 8_000_000
"""In a statement, whose rows are one JSON document: PostgreSQL takes no array of 256 MB."""

Names = tuple[str, ...]


def insert_calls(table: Table, of_executions: Names, of_tries: Names) -> list[tuple[int, int]]:
    """Write an execution and its try for each row, which has the columns of both. Gives their ids."""
    shared = _encode({**table.shared, **table.spaced})
    spaced = tuple(table.spaced)
    names = (*table.shared, *spaced)
    if table.count == 1:
        with _transaction(is_one_statement=True):
            return fetched(_insert_one(names, of_executions, of_tries), shared=shared)
    statement = _insert_many(names, tuple(table.own), spaced, of_executions, of_tries)
    documents = [*_documents(table, range(table.count))]
    ids: list[tuple[int, int]] = []
    with _transaction(is_one_statement=len(documents) == 1):
        for rows in documents:
            # The place of the last row of all among those of this statement, for `spaced`.
            ids += fetched(statement, shared=shared, rows=rows, last=table.count - len(ids))
    return ids


def _transaction(*, is_one_statement: bool) -> AbstractContextManager[Any]:
    """A transaction or a part of the caller's, unless a statement is one by itself."""
    return by_itself() if is_one_statement and not in_transaction() else atomic()


def _documents(table: Table, places: range) -> Iterator[str]:
    """The values of these rows' own columns as documents, none of them too large."""
    if len(places) <= MOST_ROWS:
        own = [values[places.start : places.stop] for values in table.own.values()]
        text = _encode([dict(zip(table.own, values, strict=True)) for values in zip(*own, strict=True)])
        if len(text) <= MOST_CHARACTERS or len(places) == 1:
            yield text
            return
        step = (len(places) + 1) // 2
    else:
        step = MOST_ROWS
    for start in range(0, len(places), step):
        yield from _documents(table, places[start : start + step])


def _plain(value: Any) -> str:
    """The text form of a value that JSON does not have."""
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_encode = json.JSONEncoder(default=_plain, separators=(",", ":")).encode


@lru_cache(maxsize=100)
def _insert_one(shared: Names, of_executions: Names, of_tries: Names) -> str:
    return (
        f"WITH s AS (SELECT * FROM jsonb_to_record(%(shared)s::jsonb) AS s ({_typed(shared)})), "
        f"e AS ({_insert(TaskExecution, of_executions)} SELECT {_listed(of_executions)} FROM s RETURNING id) "
        f"{_insert(TaskExecutionTry, ('task_execution_id', *of_tries))} "
        f"SELECT e.id, {_listed(of_tries)} FROM s, e RETURNING task_execution_id, id"
    )


@lru_cache(maxsize=100)
def _insert_many(shared: Names, own: Names, spaced: Names, of_executions: Names, of_tries: Names) -> str:
    """The joins are hash joins: PostgreSQL takes each of the parts for a hundred rows, however many there are.

    A try finds its execution by the uuid, and the caller's row both of them: nothing says that ids follow the order.
    """
    values = {name: f"s.{_column(name)} - (%(last)s::bigint - x.place) * interval '1 microsecond'" for name in spaced}

    def listed(names: Names) -> str:
        return ", ".join(values.get(name) or f"{'x' if name in own else 's'}.{_column(name)}" for name in names)

    return (
        f"WITH s AS (SELECT * FROM jsonb_to_record(%(shared)s::jsonb) AS s ({_typed(shared)})), "
        f"x AS (SELECT * FROM ROWS FROM (jsonb_to_recordset(%(rows)s::jsonb) AS ({_typed(own)})) "
        f"WITH ORDINALITY AS x ({_listed(own)}, place)), "
        f"e AS ({_insert(TaskExecution, of_executions)} SELECT {listed(of_executions)} FROM s, x ORDER BY x.place "
        "RETURNING id, uuid), "
        f"t AS ({_insert(TaskExecutionTry, ('task_execution_id', *of_tries))} "
        f"SELECT e.id, {listed(of_tries)} FROM s, x JOIN e ON e.uuid = x.uuid ORDER BY x.place "
        "RETURNING task_execution_id, id) "
        "SELECT e.id, t.id FROM x JOIN e ON e.uuid = x.uuid JOIN t ON t.task_execution_id = e.id ORDER BY x.place"
    )


def _insert(model: Any, names: Names) -> str:
    return f"INSERT INTO {EXECUTIONS if model is TaskExecution else TRIES} ({_listed(names)})"


def _typed(names: Names) -> str:
    connection = connections[alias()]
    return ", ".join(f"{_column(name)} {str(_field(name).db_type(connection)).split('(')[0]}" for name in names)


def _listed(names: Names) -> str:
    return ", ".join(map(_column, names))


def _column(name: str) -> str:
    return f'"{_field(name).column}"'


def _field(name: str) -> Any:
    """The column of an execution, or else of a try: those that both have are of one type."""
    try:
        return TaskExecution._meta.get_field(name)
    except FieldDoesNotExist:
        return TaskExecutionTry._meta.get_field(name)

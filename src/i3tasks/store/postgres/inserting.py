"""New executions with their first tries: a single one in one statement, many in two for each thousand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import Any
from uuid import UUID

from django.db import connections

from ...models import TaskExecution, TaskExecutionTry
from ..database import alias
from .statements import EXECUTIONS, TRIES, fetched

MOST_ROWS = 1000
MOST_CHARACTERS = 8_000_000
"""In a statement, whose rows are one JSON document: PostgreSQL takes no array of 256 MB."""

Columns = dict[str, Any]


def insert_one(execution: Columns, task_try: Columns) -> tuple[int, int]:
    """Write both rows. Gives their ids."""
    statement = _insert_one(tuple(execution), tuple(task_try))
    [(execution_id, try_id)] = fetched(statement, executions=_encode([execution]), tries=_encode([task_try]))
    return execution_id, try_id


def insert_many(executions: Sequence[Columns], tries: Sequence[Columns]) -> list[tuple[int, int]]:
    """Write each pair of rows. Gives their ids."""
    statement = _insert(TaskExecution, tuple(executions[0]), "id, uuid")
    found: dict[UUID, int] = {}
    for part in _parts(executions):
        found |= {uuid: pk for pk, uuid in fetched(statement, rows=part)}
    ids = [found[columns["uuid"]] for columns in executions]
    of_executions = [{"task_execution_id": pk, **columns} for pk, columns in zip(ids, tries, strict=True)]
    statement = _insert(TaskExecutionTry, tuple(of_executions[0]), "task_execution_id, id")
    try_ids: dict[int, int] = {}
    for part in _parts(of_executions):
        try_ids |= dict(fetched(statement, rows=part))
    return [(pk, try_ids[pk]) for pk in ids]


def _parts(rows: Sequence[Columns]) -> Iterator[str]:
    """The rows as documents, none of them too large."""
    for start in range(0, len(rows), MOST_ROWS):
        yield from _documents(rows[start : start + MOST_ROWS])


def _documents(rows: Sequence[Columns]) -> Iterator[str]:
    text = _encode(rows)
    if len(text) <= MOST_CHARACTERS or len(rows) == 1:
        yield text
    else:
        middle = len(rows) // 2
        yield from _documents(rows[:middle])
        yield from _documents(rows[middle:])


def _plain(value: Any) -> str:
    """The text form of a value that JSON does not have."""
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return _instant(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


@lru_cache(maxsize=16)
def _instant(value: datetime) -> str:
    """Rows that are written together have the same ones."""
    return value.isoformat()


_encode = json.JSONEncoder(default=_plain).encode


@cache
def _insert_one(execution: Sequence[str], task_try: Sequence[str]) -> str:
    names = ", ".join(_columns(TaskExecutionTry, task_try))
    return (
        f"WITH e AS ({_insert(TaskExecution, execution, 'id').replace('%(rows)s', '%(executions)s')}) "
        f"INSERT INTO {TRIES} (task_execution_id, {names}) SELECT e.id, {names} FROM e, "
        f"{_recordset(TaskExecutionTry, task_try).replace('%(rows)s', '%(tries)s')} RETURNING task_execution_id, id"
    )


@cache
def _insert(model: Any, columns: Sequence[str], returned: str) -> str:
    table = EXECUTIONS if model is TaskExecution else TRIES
    names = ", ".join(_columns(model, columns))
    return f"INSERT INTO {table} ({names}) SELECT {names} FROM {_recordset(model, columns)} RETURNING {returned}"


def _recordset(model: Any, columns: Sequence[str]) -> str:
    types = [model._meta.get_field(name).db_type(connections[alias()]).split("(")[0] for name in columns]
    typed = [f"{name} {type_}" for name, type_ in zip(_columns(model, columns), types, strict=True)]
    return f"jsonb_to_recordset(%(rows)s::jsonb) AS x ({', '.join(typed)})"


def _columns(model: Any, names: Sequence[str]) -> list[str]:
    return [f'"{model._meta.get_field(name).column}"' for name in names]

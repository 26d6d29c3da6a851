"""Running a statement, and the text forms of its arrays, which cost a fraction of what a driver's own do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from django.db import connections

from ...models import QueuePause, TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup
from ..database import DATABASE_TIME, Instant, alias

Answer = TypeVar("Answer")

EXECUTIONS, TRIES, RESULTS, GROUPS, PAUSES = (
    f'"{model._meta.db_table}"'
    for model in (TaskExecution, TaskExecutionTry, TaskExecutionResult, TaskGroup, QueuePause)
)
NOW = "coalesce(%(now)s::timestamptz, statement_timestamp())"
"""The time, in a statement that is given `now`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_stored: Any = TaskExecution._meta.get_field("task_args")


def are_known(now: Instant = DATABASE_TIME) -> bool:
    """Whether the database knows these statements. They take an instant as `now`, or nothing, but no expression."""
    return connections[alias()].vendor == "postgresql" and (now is DATABASE_TIME or isinstance(now, datetime))


class Question(NamedTuple, Generic[Answer]):
    """A statement with its values, and the function that makes the answer of the rows that it returns."""

    statement: str
    values: Mapping[str, Any]
    answer: Callable[[list[tuple[Any, ...]]], Answer]

    def ask(self) -> Answer:
        """The answer to this question alone."""
        return self.answer(_rows(self.statement, self.values))


def fetched(statement: str, *, now: Instant = DATABASE_TIME, **values: Any) -> list[tuple[Any, ...]]:
    """The rows that the statement returns."""
    return _rows(statement, {"now": instant(now), **values})


def _rows(statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    with connections[alias()].cursor() as cursor:
        cursor.execute(statement, values)
        found: list[tuple[Any, ...]] = cursor.fetchall()
        return found


def instant(now: Instant) -> datetime | None:
    """The value of `now` for NOW."""
    return now if isinstance(now, datetime) else None


def waiting(statement: str) -> str:
    """The statement that waits for locked rows instead of leaving them out."""
    return statement.replace(" SKIP LOCKED", "")


def integers(values: Sequence[int]) -> str:
    """An array of integers."""
    return "{" + str([*values])[1:-1] + "}"


def repeated(ids: Sequence[int]) -> set[int]:
    """Those that come more than once."""
    return {each for each, times in Counter(ids).items() if times > 1} if len({*ids}) < len(ids) else set()


def uuids(values: Iterable[UUID | None]) -> str:
    """An array of UUIDs."""
    return "{" + ",".join(["NULL" if value is None else value.hex for value in values]) + "}"


def document(value: Any) -> str:
    """JSON as Django writes it to a column."""
    return json.dumps(value)


def read(text: str | None) -> Any:
    """JSON as the models read it from a column."""
    if text is None:
        return None
    if text == "[]":
        return []
    if text == "{}":
        return {}
    return _stored.from_db_value(text, None, None)


def microseconds(instant: str) -> str:
    """SQL: an instant as a number. As an instant, Django's loader would take twenty times as long."""
    return f"(extract(epoch from {instant}) * 1000000)::bigint"


def moment(number: int) -> datetime:
    """The instant of that number."""
    return _EPOCH + timedelta(microseconds=number)

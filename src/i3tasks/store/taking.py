"""Taking tries that wait: they are locked, and put off until the process that takes them has had its time with them.

Only some columns of their rows are read: to make instances of tries and executions takes ten times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db.models import DateTimeField
from django.db.models.functions import Coalesce

from ..models import TaskExecutionTry
from .database import DATABASE_TIME, Instant, Rows, join_by_index, rows, unlocked_values, with_database_time
from .postgres.statements import are_known
from .postgres.taking import take_locked
from .requests import TryRef

DUE_SINCE = Coalesce("run_after", "asked_at", output_field=DateTimeField())


class Waiting(NamedTuple):
    """A waiting try that is locked."""

    pk: int
    module_name: str
    func_name: str
    queue_name: str | None
    """As its execution has it: None is the default queue."""
    priority: int
    due_since: datetime


def lock(tries: Rows) -> list[Waiting]:
    """Lock those of the tries that no other transaction has locked, and give them in the queryset's order."""
    names = ("task_path", "task_name", "queue_name")
    of_execution = [f"task_execution__{name}" for name in names]
    return [Waiting(*row) for row in unlocked_values(tries, "pk", *of_execution, "priority", DUE_SINCE)]


def take(
    tries: Sequence[Waiting], ahead: timedelta, *, anew: bool = False, now: Instant = DATABASE_TIME
) -> list[TryRef]:
    """Put these tries, which the caller has locked, off for so long ahead. The references are in their order.

    `anew`: messages that they may still have no longer count, and others do not take them for unsent meanwhile.
    """
    ids = [waiting.pk for waiting in tries]
    if not ids:
        return []
    if are_known(now):
        join_by_index(len(ids))
        taken = take_locked(ids, ahead, anew, now)
    else:
        taken = _taken(ids, ahead, anew, now)
    return [taken[pk] for pk in ids]


def _taken(ids: Sequence[int], ahead: timedelta, anew: bool, now: Instant) -> dict[int, TryRef]:
    tries = with_database_time(rows(TaskExecutionTry).filter(pk__in=ids), now)
    names = ("task_path", "task_name", "queue_name", "trace_context", "priority")
    of_execution = [f"task_execution__{name}" for name in names]
    found = [*tries.values_list("database_time", "pk", "task_execution_id", *of_execution)]
    at = found[0][0]
    news = {"publish_count": 0, "updated_at": at} if anew else {}
    rows(TaskExecutionTry).filter(pk__in=ids).update(dispatch_at=at + ahead, **news)
    return {
        pk: TryRef(pk, execution_id, module, function, queue, at + ahead, trace, priority)
        for _, pk, execution_id, module, function, queue, trace, priority in found
    }

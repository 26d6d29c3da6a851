"""Executions as the lines of a list: state, error, wait, duration, next try."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import TextField
from django.db.models.functions import Cast, Substr

from ..conf import queue_or_default
from ..models import TaskExecution, TaskExecutionTry, TryState
from ..store.database import rows
from ..store.states import State, state_of

LONGEST_TEXT = 160
CANCELLING = "cancelling"
"""Shown in the place of a state: the cancellation was requested, and the worker has not stopped the body yet."""


@dataclass(frozen=True, slots=True)
class ExecutionLine:
    """An execution in a list."""

    execution: TaskExecution
    state: str
    queue: str
    tries: int
    wait: timedelta | None
    """How long its try waited since it was due, or has waited so far."""
    duration: timedelta | None
    """How long its try ran, or has run so far."""
    next_at: datetime | None
    """When it is due, if that is still to come."""
    error_class: str = ""
    error: str = ""

    @property
    def task(self) -> str:
        return f"{self.execution.task_path}.{self.execution.task_name}"


def lines(executions: Sequence[Any], now: datetime, *, with_texts: bool) -> list[ExecutionLine]:
    """The lines of executions, each with its `latest` try. Texts of errors may quote arguments."""
    errors = _errors([row.pk for row in executions], with_texts=with_texts)
    return [_line(row, row.latest[0] if row.latest else None, now, errors.get(row.pk, ("", ""))) for row in executions]


def shown_state(execution: TaskExecution, latest: TaskExecutionTry | None, now: datetime) -> str:
    """The word of the state; `unknown` for an execution without tries."""
    state = state_of(execution, latest, now)
    if state is State.RUNNING and execution.cancel_requested_at is not None:
        return CANCELLING
    return "unknown" if state is None else state.value


def queue_of(execution: TaskExecution) -> str:
    """The name of its queue."""
    return queue_or_default(execution.queue_name)


def wait_of(one: TaskExecutionTry, now: datetime) -> timedelta | None:
    """How long a try waited, or has waited, since it was due. None: it is not due, or was cancelled before it ran."""
    due = one.run_after or one.asked_at
    until = one.started_at or (now if TryState.of(one) is TryState.PENDING else None)
    return max(until - due, timedelta()) if until is not None and until >= due else None


def duration_of(one: TaskExecutionTry, now: datetime) -> timedelta | None:
    """How long a try ran, or has run so far."""
    return None if one.started_at is None else (one.finished_at or now) - one.started_at


def _line(execution: Any, latest: TaskExecutionTry | None, now: datetime, error: tuple[str, str]) -> ExecutionLine:
    state = shown_state(execution, latest, now)
    has_error = state not in (State.SUCCEEDED, State.WAITING, State.DEFERRED)
    return ExecutionLine(
        execution=execution,
        state=state,
        queue=queue_of(execution),
        tries=0 if latest is None else latest.try_number,
        wait=None if latest is None else wait_of(latest, now),
        duration=None if latest is None else duration_of(latest, now),
        next_at=latest.run_after if latest is not None and state in (State.RETRYING, State.DEFERRED) else None,
        error_class=error[0] if has_error else "",
        error=error[1] if has_error else "",
    )


def _errors(ids: Sequence[int], *, with_texts: bool) -> dict[int, tuple[str, str]]:
    """The class and the text of the latest error of each execution that has had one."""
    failed: Any = rows(TaskExecutionTry).filter(task_execution__in=ids, error_class__isnull=False)
    if not with_texts:
        found = failed.order_by("try_number").values_list("task_execution_id", "error_class")
        return {pk: (error_class, "") for pk, error_class in found}
    # Of a text that may be megabytes long, the database gives the beginning.
    cut = Substr(Cast("result__result", TextField()), 1, LONGEST_TEXT + 1)
    found = failed.annotate(text=cut).order_by("try_number")
    return {
        pk: (error_class, _text(text or ""))
        for pk, error_class, text in found.values_list("task_execution_id", "error_class", "text")
    }


def _text(stored: str) -> str:
    """A JSON string, maybe cut, as text."""
    if not stored.startswith('"'):
        return stored[:LONGEST_TEXT]
    is_cut = len(stored) > LONGEST_TEXT
    try:
        text = json.loads(
            stored[: stored.rfind("\\")] + '"' if is_cut and "\\" in stored[-6:] else stored + '"' * is_cut
        )
    except ValueError:
        text = stored[1:]
    return f"{text}…" if is_cut else str(text)

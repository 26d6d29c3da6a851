"""Rows as time leaves them: executions and tries in any state and of any age, ours and django-i3tasks'."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from i3tasks.models import TaskExecution, TaskExecutionResult, TaskExecutionTry

STATES: dict[str, dict[str, Any]] = {
    "pending": {},
    "running": {"started_at": True},
    "success": {"started_at": True, "finished_at": True, "is_completed": True, "is_success": True},
    "failed": {"started_at": True, "finished_at": True, "is_completed": True},
    # django-i3tasks: a try that failed is never completed.
    "old failed": {"started_at": True, "finished_at": True},
}


def ago(**age: float) -> datetime:
    return datetime.now(UTC) - timedelta(**age)


def execution(at: datetime | None = None, *, name: str = "app.tasks.send_email", **columns: Any) -> TaskExecution:
    """An execution that was created at that time."""
    module, _, function = name.rpartition(".")
    row = TaskExecution.objects.create(task_path=module, task_name=function, **columns)
    if at is not None:
        TaskExecution.objects.filter(pk=row.pk).update(created_at=at, updated_at=at)
        row.refresh_from_db()
    return row


def a_try(
    state: str,
    at: datetime | None = None,
    *,
    of: TaskExecution | None = None,
    result: Any = None,
    name: str = "app.tasks.send_email",
    **columns: Any,
) -> TaskExecutionTry:
    """A try in that state, whose every instant is `at`."""
    at = at or ago()
    of = of or execution(at, name=name)
    values = {
        column: at if value is True and column.endswith("_at") else value for column, value in STATES[state].items()
    }
    if "old" not in state and state != "pending":
        values["claim_token"] = uuid4()
    row = TaskExecutionTry.objects.create(task_execution=of, **{**values, **columns})
    TaskExecutionTry.objects.filter(pk=row.pk).update(created_at=at, asked_at=columns.get("asked_at", at))
    row.refresh_from_db()
    if result is not None:
        TaskExecutionResult.objects.create(task_execution_try=row, result=result)
    return row


def finished(outcome: str | None, at: datetime, *, try_state: str | None = None, **columns: Any) -> TaskExecution:
    """An execution that has ended, with its try. Outcome None: django-i3tasks ran it."""
    row = execution(at, outcome=outcome, finished_at=at if outcome else None, **columns)
    a_try(try_state or ("success" if outcome == "success" else "failed"), at, of=row, result="x")
    return row

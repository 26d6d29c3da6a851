"""Another chance for executions that have failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from ..conf import get_config
from ..models import TaskExecution, TaskExecutionTry
from .database import atomic, locked, rows
from .workflows import discount


def revive(execution_ids: Sequence[int], *, now: datetime) -> list[TaskExecutionTry]:
    """Write one more try for each of these executions that has failed or was cancelled; the others are left alone.

    It is one try, past `max_retries`. If it succeeds the execution's chain goes on. A group that the failure has
    failed stays failed; one that waits for all its members waits for this one again.
    """
    grace = timedelta(seconds=get_config().settings.publish_grace_seconds)
    ended = (TaskExecution.Outcome.FAILED, TaskExecution.Outcome.CANCELLED)
    with atomic():
        executions = list(locked(rows(TaskExecution).filter(pk__in=execution_ids, outcome__in=ended), wait=True))
        rows(TaskExecution).filter(pk__in=[row.pk for row in executions]).update(
            outcome=None, finished_at=None, cancel_requested_at=None, updated_at=now
        )
        discount(executions, now)
        return rows(TaskExecutionTry).bulk_create(
            TaskExecutionTry(task_execution=row, try_number=_next_number(row), dispatch_at=now + grace)
            for row in executions
        )


def _next_number(execution: TaskExecution) -> int:
    last = rows(TaskExecutionTry).filter(task_execution=execution.pk).order_by("-try_number").first()
    return 1 if last is None else last.try_number + 1

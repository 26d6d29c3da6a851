"""New executions and their first tries, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ..models import TaskExecution, TaskExecutionTry, TaskGroup
from .database import atomic, rows
from .refs import TryRef


@dataclass(frozen=True, slots=True)
class NewExecution:
    """A call, ready to be written. Arguments are JSON data."""

    module_name: str
    func_name: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue_name: str | None = None
    run_after: datetime | None = None
    priority: int = 0
    overrides: dict[str, Any] = field(default_factory=dict)
    chain: list[Any] | None = None
    task_group: TaskGroup | None = None


def insert(calls: Sequence[NewExecution], *, now: datetime, grace_seconds: float) -> list[TaskExecutionTry]:
    """Write an execution and its first try for each call: two statements, whatever their number.

    `now` is the caller's clock, which costs no query. Until a publish is confirmed, the dispatcher takes a try over
    `grace_seconds` from `now`.
    """
    with atomic():
        executions = rows(TaskExecution).bulk_create([_execution(call) for call in calls])
        return rows(TaskExecutionTry).bulk_create(
            TaskExecutionTry(
                task_execution=execution,
                run_after=call.run_after,
                dispatch_at=call.run_after or now + timedelta(seconds=grace_seconds),
            )
            for execution, call in zip(executions, calls, strict=True)
        )


def ref(task_try: TaskExecutionTry) -> TryRef:
    """What the outbox needs to know of a try."""
    execution = task_try.task_execution
    assert task_try.dispatch_at is not None, "a try that is running or terminal is not published"
    return TryRef(
        try_id=task_try.pk,
        execution_id=execution.pk,
        module_name=execution.task_path,
        func_name=execution.task_name,
        queue_name=execution.queue_name,
        dispatch_at=task_try.dispatch_at,
    )


def _execution(call: NewExecution) -> TaskExecution:
    return TaskExecution(
        task_path=call.module_name,
        task_name=call.func_name,
        task_args=call.args,
        task_kwargs=call.kwargs,
        queue_name=call.queue_name,
        priority=call.priority,
        options=call.overrides or None,
        chain=call.chain,
        task_group=call.task_group,
    )

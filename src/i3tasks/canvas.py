"""Handles to what was enqueued."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import UUID

from .models import TaskExecution, TaskExecutionTry

Result = TypeVar("Result", covariant=True)


@dataclass(slots=True)
class ChainHandle(Generic[Result]):
    """An enqueued call. `task_execution_id` and `task_uuid` are worth keeping: the status endpoint takes either."""

    task_execution_try: TaskExecutionTry | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)

    @property
    def task_execution(self) -> TaskExecution | None:
        return None if self.task_execution_try is None else self.task_execution_try.task_execution

    @property
    def task_execution_id(self) -> int | None:
        return None if self.task_execution_try is None else self.task_execution_try.task_execution_id

    @property
    def task_uuid(self) -> UUID | None:
        return None if self.task_execution is None else self.task_execution.uuid

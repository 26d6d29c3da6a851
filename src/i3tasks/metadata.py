"""What a task declared with `bind=True` is told about the run it is in."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from .models import TaskExecution


@dataclass(frozen=True, slots=True)
class TaskMetadata:
    """The run of a task, as its `task_metadata` argument."""

    task_path: str  # the module
    task_name: str
    task_execution_id: int
    task_execution_try_id: int
    task_uuid: UUID
    try_number: int
    """From 1."""
    max_retries: int
    queue_name: str
    _cancelled: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    @property
    def is_first_try(self) -> bool:
        return self.try_number == 1

    @property
    def is_last_try(self) -> bool:
        """No retry follows if this try fails."""
        return self.try_number > self.max_retries

    def is_cancelled(self) -> bool:
        """Whether the run was cancelled, or lost to another worker. Long sync bodies should ask now and then.

        Costs nothing: it is as fresh as the worker's last heartbeat.
        """
        return self._cancelled.is_set()

    @property
    def task_execution(self) -> TaskExecution:
        """The execution's row, read from the database. In a coroutine use `aget_task_execution`."""
        from .models import TaskExecution

        return TaskExecution._default_manager.get(pk=self.task_execution_id)

    async def aget_task_execution(self) -> TaskExecution:
        """The execution's row, read from the database."""
        from .models import TaskExecution

        return await TaskExecution._default_manager.aget(pk=self.task_execution_id)

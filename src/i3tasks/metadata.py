"""The information that a task declared with `bind=True` gets about its run."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from .models import TaskExecution


@dataclass(frozen=True, slots=True)
class TaskMetadata:
    """Describes the run of a task; passed to its body as the argument `task_metadata`."""

    task_path: str  # the name of the task's module
    task_name: str
    task_execution_id: int
    task_execution_try_id: int
    task_uuid: UUID
    try_number: int
    """The number of this try, counted from 1."""
    max_retries: int
    queue_name: str
    headers: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The request headers that travelled with the call: those of `propagate_headers`, in lower case."""
    context: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The log context that travelled with the call: that of `propagate_context`."""
    traceparent: str | None = None
    """The trace and span of this try, as W3C Trace Context writes them; None without a trace."""
    run_after: datetime | None = None
    """The instant before which this try was not to run: a deferral's, or a retry's. None: it was to run at once."""
    schedule: str | None = None
    """The name of the schedule that made the call; None: no schedule did."""
    slot: datetime | None = None
    """The slot for which it made the call, which may be earlier than the call; for a run by hand, the time of it."""
    _cancelled: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    @property
    def is_first_try(self) -> bool:
        """Whether this is the execution's first try."""
        return self.try_number == 1

    @property
    def is_last_try(self) -> bool:
        """Whether this try is the last one: no retry follows if it fails."""
        return self.try_number > self.max_retries

    def is_cancelled(self, *, refresh: bool = False) -> bool:
        """Whether the run was cancelled, or its lease was lost to another worker.

        A long sync body should call this regularly and return when it is true. The call makes no query: the answer is
        as recent as the worker's last heartbeat. With `refresh` it asks the database, unless it is true already. Use
        `ais_cancelled` for that in a coroutine.
        """
        if refresh and not self._cancelled.is_set() and not self._still_wanted().exists():
            self._cancelled.set()
        return self._cancelled.is_set()

    async def ais_cancelled(self) -> bool:
        """Ask the database whether the run was cancelled, or its lease was lost to another worker."""
        if not self._cancelled.is_set() and not await self._still_wanted().aexists():
            self._cancelled.set()
        return self._cancelled.is_set()

    @property
    def previous_error(self) -> str | None:
        """The class and text of the error that ended the try before this one, read from the database.

        None: it is the first try, or the row of the try before is gone. Use `aget_previous_error` in a coroutine.
        """
        return _as_text(self._previous_error().first()) if self.try_number > 1 else None

    async def aget_previous_error(self) -> str | None:
        """Read the error of the try before this one from the database."""
        return _as_text(await self._previous_error().afirst()) if self.try_number > 1 else None

    def _still_wanted(self) -> Any:
        from .models import TaskExecutionTry

        return TaskExecutionTry._default_manager.filter(
            pk=self.task_execution_try_id, is_completed=False, task_execution__cancel_requested_at__isnull=True
        )

    def _previous_error(self) -> Any:
        from .models import TaskExecutionTry

        tries = TaskExecutionTry._default_manager.filter(
            task_execution=self.task_execution_id, try_number=self.try_number - 1
        )
        return tries.values_list("error_class", "result__result")

    @property
    def task_execution(self) -> TaskExecution:
        """The execution's row, read from the database. Use `aget_task_execution` in a coroutine."""
        from .models import TaskExecution

        return TaskExecution._default_manager.get(pk=self.task_execution_id)

    async def aget_task_execution(self) -> TaskExecution:
        """Read the execution's row from the database."""
        from .models import TaskExecution

        return await TaskExecution._default_manager.aget(pk=self.task_execution_id)


def _as_text(error: tuple[str | None, Any] | None) -> str | None:
    return None if error is None else ": ".join(str(part) for part in error if part)

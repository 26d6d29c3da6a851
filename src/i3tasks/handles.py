"""What `delay` gives back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar, cast
from uuid import UUID

from asgiref.sync import sync_to_async

from .clock import SYSTEM_CLOCK
from .engine.launch import launch, refuse_in_loop
from .exceptions import I3TasksError, TaskFailed
from .models import TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup
from .steps import Step, Steppable
from .store.cancel import cancel_workflow, reschedule
from .store.chains import append_step
from .store.database import rows
from .store.groups import cancel_group
from .store.revive import revive
from .values import decode
from .when import When, instant

T = TypeVar("T", covariant=True)


@dataclass(slots=True)
class ChainHandle(Generic[T]):
    """An enqueued call, or the first one of a chain; `T` is what it returns.

    Keep `task_execution_id` or `task_uuid` to find it again later: the status endpoint takes either. A handle made by
    `build_chain()` has nothing but `steps`.
    """

    task_execution_try: TaskExecutionTry | None = None
    steps: list[Step] = field(default_factory=list)
    task_group: TaskGroup | None = None  # of a workflow that begins with a group

    @property
    def task_execution(self) -> TaskExecution | None:
        return None if self.task_execution_try is None else self.task_execution_try.task_execution

    @property
    def task_execution_id(self) -> int | None:
        return None if self.task_execution_try is None else self.task_execution_try.task_execution_id

    @property
    def task_uuid(self) -> UUID | None:
        return None if self.task_execution is None else self.task_execution.uuid

    def as_steps(self) -> list[Step]:
        """The steps that were collected, for a group's callback or `on_success`."""
        return list(self.steps)

    def then(self, task: Steppable, *args: Any, **kwargs: Any) -> Self:
        """Run `task` after all that is in the chain so far has succeeded; right away if it has. Returns itself."""
        step = task.as_step(*args, **kwargs)
        start = self.task_group or self.task_execution
        if start is not None:
            launch(append_step(start, step))
        self.steps.append(step)
        return self

    async def athen(self, task: Steppable, *args: Any, **kwargs: Any) -> Self:
        """`then` for coroutines."""
        return await sync_to_async(self.then)(task, *args, **kwargs)

    def cancel(self) -> None:
        """Call off what has not finished of this call and its chain, with the groups in it.

        What has not started never will; a running coroutine is cancelled within a heartbeat; a running sync function
        is told by `task_metadata.is_cancelled()`, or killed if its task has `isolation="process"`.
        """
        if self.task_group is not None:
            launch(cancel_group(self.task_group.pk))
        else:
            launch(cancel_workflow(execution_ids=[self._required_id()]))

    async def acancel(self) -> None:
        """`cancel` for coroutines."""
        await sync_to_async(self.cancel)()

    def retry(self) -> bool:
        """One more try for a call that has failed or was cancelled. False: it has not."""
        tries = revive([self._required_id()], now=SYSTEM_CLOCK.now())
        launch(tries)
        return bool(tries)

    async def aretry(self) -> bool:
        """`retry` for coroutines."""
        return await sync_to_async(self.retry)()

    def reschedule(self, run_after: When) -> bool:
        """Move a call that has not started to another instant, given as to `using(run_after=...)`. False: too late."""
        return reschedule(self._required_id(), instant("run_after", run_after))

    async def areschedule(self, run_after: When) -> bool:
        """`reschedule` for coroutines."""
        return await sync_to_async(self.reschedule)(run_after)

    def result(self, timeout: float | None = None) -> T:
        """Wait for the call to finish and give what it returned.

        Raises TaskFailed if it did not succeed, TimeoutError after `timeout` seconds.
        """
        refuse_in_loop("result")
        for pause in _pauses(timeout):
            if self._is_finished():
                return self._value()
            time.sleep(pause)
        raise TimeoutError(f"{self.task_execution} has not finished within {timeout} seconds.")

    async def aresult(self, timeout: float | None = None) -> T:
        """`result` for coroutines."""
        for pause in _pauses(timeout):
            if await sync_to_async(self._is_finished)():
                return await sync_to_async(self._value)()
            await asyncio.sleep(pause)
        raise TimeoutError(f"{self.task_execution} has not finished within {timeout} seconds.")

    def _required_id(self) -> int:
        if self.task_group is not None:
            raise I3TasksError("This workflow begins with a group, which has no result or next try of its own.")
        if self.task_execution_id is None:
            raise I3TasksError("This handle was made by build_chain(): nothing of it has been enqueued.")
        return self.task_execution_id

    def _is_finished(self) -> bool:
        return rows(TaskExecution).filter(pk=self._required_id(), outcome__isnull=False).exists()

    def _value(self) -> T:
        tries = rows(TaskExecutionTry).filter(task_execution=self._required_id())
        last = tries.order_by("-is_success", "-try_number")[0]
        result = rows(TaskExecutionResult).filter(task_execution_try=last).first()
        if not last.is_success:
            raise TaskFailed(f"{self.task_execution}: {last.error_class}: {result.result if result else ''}")
        return cast(T, decode(result.result if result else None))


def _pauses(timeout: float | None) -> Iterator[float]:
    """Pauses between looks, 20 ms growing to a second, for `timeout` seconds."""
    deadline = time.monotonic() + timeout if timeout is not None else float("inf")
    pause = 0.02
    while (left := deadline - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(pause * 1.5, 1.0)

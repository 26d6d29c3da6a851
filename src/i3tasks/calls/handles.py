"""Handles, which `delay` returns: they wait for a call, cancel it, or add steps to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload
from uuid import UUID

from asgiref.sync import sync_to_async

from ..core.clock import current_clock
from ..core.steps import Step, Steppable
from ..engine.launch import launch, refuse_in_loop
from ..exceptions import ArgumentError, ExecutionNotFound, I3TasksError
from ..models import TaskExecution, TaskExecutionTry, TaskGroup
from ..store.database import rows, time_of
from .when import When, instant
from .workflow_parts import step_of

if TYPE_CHECKING:
    from .base import Task
    from .canvas import Signature
    from .results import Wait, Written

T = TypeVar("T", covariant=True)
U = TypeVar("U")

_NOT_ENQUEUED = (
    "This handle was made by build_chain(): nothing of it has been enqueued. It is a part of a workflow; to call the "
    "task, use delay()."
)


@dataclass(slots=True, repr=False, eq=False)
class ChainHandle(Generic[T]):
    """An enqueued call, or the first one of a chain; `T` is what it returns.

    Keep `task_execution_id` or `task_uuid` to find it again later: the status endpoint takes either. A handle made by
    `build_chain()` has nothing but `steps`.
    """

    _first_try: TaskExecutionTry | Callable[[], TaskExecutionTry] | None = None
    steps: list[Step] = field(default_factory=list)
    task_group: TaskGroup | None = None  # of a workflow that begins with a group
    _written: Written | None = field(default=None, repr=False, compare=False)
    _first_only: bool = field(default=False, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"ChainHandle({self.task_group or self.task_execution}, steps={self.steps})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChainHandle):
            return NotImplemented
        own, its = ((it.task_execution_try, it.steps, it.task_group) for it in (self, other))
        return own == its

    @property
    def task_execution_try(self) -> TaskExecutionTry | None:
        """The first try; of a keyed call, the latest try of the first call."""
        if self._first_try is not None and not isinstance(self._first_try, TaskExecutionTry):
            self._first_try = self._first_try()
        return self._first_try

    @property
    def task_execution(self) -> TaskExecution | None:
        """The call's row, as it was written."""
        return None if self.task_execution_try is None else self.task_execution_try.task_execution

    @property
    def task_execution_id(self) -> int | None:
        """The primary key of the call's row."""
        return None if self.task_execution_try is None else self.task_execution_try.task_execution_id

    @property
    def task_uuid(self) -> UUID | None:
        """The call's uuid, which may be shown to others."""
        return None if self.task_execution is None else self.task_execution.uuid

    def as_steps(self) -> list[Step]:
        """The collected steps, for a group's callback or `on_success`. Raises ArgumentError for a call under way."""
        if self.task_execution_try is not None or self.task_group is not None:
            name = "a group" if self.task_execution is None else f"{self.task_execution.task_name}"
            raise ArgumentError(
                f"The handle is of {name} that has been enqueued already. Write .s(...) instead of .delay(...), or add "
                "steps to it by then()."
            )
        return list(self.steps)

    @overload
    def then(self, task: Task[Any, U], /, *args: Any, **kwargs: Any) -> ChainHandle[U]: ...
    @overload
    def then(self, task: Signature[U], /) -> ChainHandle[U]: ...
    @overload
    def then(self, task: Steppable, /, *args: Any, **kwargs: Any) -> ChainHandle[Any]: ...
    def then(self, task: Steppable, /, *args: Any, **kwargs: Any) -> ChainHandle[Any]:
        """Add `task` to the end of the chain, as its next step; returns the handle itself.

        The task is enqueued at once if the chain has succeeded already.
        """
        from ..store.appending import append_step

        refuse_in_loop("then", "athen")
        step = step_of("then()", task, *args, **kwargs)
        start = self.task_group or self.task_execution
        if start is not None:
            launch(append_step(start, step, now=current_clock().now()))
        self.steps.append(step)
        return self

    @overload
    async def athen(self, task: Task[Any, U], /, *args: Any, **kwargs: Any) -> ChainHandle[U]: ...
    @overload
    async def athen(self, task: Signature[U], /) -> ChainHandle[U]: ...
    @overload
    async def athen(self, task: Steppable, /, *args: Any, **kwargs: Any) -> ChainHandle[Any]: ...
    async def athen(self, task: Steppable, /, *args: Any, **kwargs: Any) -> ChainHandle[Any]:
        """`then` for coroutines."""
        return await sync_to_async(partial(self.then, task, *args, **kwargs))()

    def cancel(self) -> None:
        """Cancel this call and the unfinished rest of its chain, with the groups in it.

        A waiting step never starts. A running coroutine is cancelled within a heartbeat; a running sync function is
        told by `task_metadata.is_cancelled()`. With `isolation="process"`, TaskCancelled is raised in it, and its
        process is killed if it goes on.
        """
        from ..store.cancel import cancel_workflow
        from ..store.groups import cancel_group

        refuse_in_loop("cancel", "acancel")
        if self.task_group is not None:
            launch(cancel_group(self.task_group.pk, now=time_of(current_clock())))
        else:
            launch(cancel_workflow(execution_ids=[self._required_id()], now=time_of(current_clock())))

    async def acancel(self) -> None:
        """`cancel` for coroutines."""
        await sync_to_async(self.cancel)()

    def retry(self) -> bool:
        """Give the call one more try if it has failed or was cancelled. False: neither is the case.

        Raises I3TasksError if its task is `unique` and another call with the same arguments is unfinished.
        """
        from ..store.cancel import UNIQUE_IS_UNFINISHED, retry_failed

        refuse_in_loop("retry", "aretry")
        retried = retry_failed([self._required_id()], now=current_clock().now())
        if retried.taken:
            raise I3TasksError(UNIQUE_IS_UNFINISHED)
        launch(retried.tries)
        return bool(retried.tries)

    async def aretry(self) -> bool:
        """`retry` for coroutines."""
        return await sync_to_async(self.retry)()

    def reschedule(self, run_after: When) -> bool:
        """Move a call that has not started to another instant, as in `using(run_after=...)`. False: it has started."""
        from ..store.cancel import reschedule

        refuse_in_loop("reschedule", "areschedule")
        return reschedule(self._required_id(), instant("run_after", run_after), now=current_clock().now())

    async def areschedule(self, run_after: When) -> bool:
        """`reschedule` for coroutines."""
        return await sync_to_async(self.reschedule)(run_after)

    @property
    def first(self) -> ChainHandle[Any]:
        """The first step alone: its `result()` does not wait for the steps that follow."""
        return ChainHandle(self._first_try, [], self.task_group, self._written, _first_only=True)

    def result(self, timeout: float | None = None) -> T:
        """Wait for the chain to end, and return the result of its last step. A single call is its own last step.

        Raises TaskFailed if a step did not succeed, ResultUnavailable if its result was not kept as a value,
        TimeoutError after `timeout` seconds, WouldWaitForever (a TimeoutError) at once if waiting would be in vain.
        """
        refuse_in_loop("result", "aresult")
        return cast(T, self._wait().wait(timeout))

    async def aresult(self, timeout: float | None = None) -> T:
        """`result` for coroutines."""
        return cast(T, await self._wait().await_(timeout))

    @classmethod
    def get(cls, key: UUID | int | str) -> ChainHandle[Any]:
        """The handle of a stored execution, by its uuid (also as text) or id. Raises ExecutionNotFound."""
        refuse_in_loop("get", "aget")
        try:
            by: dict[str, Any] = {"pk": key} if isinstance(key, int) else {"uuid": UUID(str(key))}
        except ValueError:
            by = {"pk": int(key)} if str(key).isdecimal() and len(str(key)) < 20 else {}
        tries = rows(TaskExecutionTry).filter(**{f"task_execution__{name}": value for name, value in by.items()})
        first = tries.select_related("task_execution").order_by("try_number").first() if by else None
        if first is None:
            raise ExecutionNotFound(
                f"There is no execution {key!r:.80}: never committed, or deleted since. Ask after the commit, and "
                "within the time that retention leaves."
            )
        return ChainHandle(first)

    @classmethod
    async def aget(cls, key: UUID | int | str) -> ChainHandle[Any]:
        """`get` for coroutines."""
        return await sync_to_async(cls.get)(key)

    def _wait(self) -> Wait:
        from .results import Wait

        start = self.task_group or self.task_execution
        if start is None:
            raise I3TasksError(_NOT_ENQUEUED)
        return Wait(start, self._written, first_only=self._first_only)

    def _required_id(self) -> int:
        if self.task_group is not None:
            raise I3TasksError(
                "This workflow begins with a group, which has no next try of its own. Cancel `task_group`, or retry "
                "its members."
            )
        if self.task_execution_id is None:
            raise I3TasksError(_NOT_ENQUEUED)
        return self.task_execution_id

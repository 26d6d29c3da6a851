"""`@task`, and `@TaskDecorator`, its older name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from ..exceptions import TaskDefinitionError
from ..registry import Isolation, TaskOptions, register
from ..retry import RetryPolicy
from ..steps import AsSteps, Steppable
from .kinds import AsyncTask, RecordedTask, SyncTask, Task

P = ParamSpec("P")
T = TypeVar("T")


class TaskMaker(Protocol):
    """`@task(...)` with options, waiting for its function."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> AsyncTask[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> SyncTask[P, T]: ...


class RecordedTaskMaker(Protocol):
    """`@TaskDecorator(...)` with options, waiting for its function."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> RecordedTask[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> RecordedTask[P, T]: ...


@overload
# A coroutine function is the narrower case, so it comes first.
def task(function: Callable[P, Coroutine[Any, Any, T]], /) -> AsyncTask[P, T]: ...  # type: ignore[overload-overlap]
@overload
def task(function: Callable[P, T], /) -> SyncTask[P, T]: ...
@overload
def task(
    *,
    queue_name: str | None = None,
    max_retries: int | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    priority: int = 0,
    bind: bool = False,
    unique: bool = False,
    run_once: bool = False,
    isolation: Isolation = "thread",
    on_success: AsSteps | None = None,
    on_failure: Steppable | None = None,
) -> TaskMaker: ...
def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task.

    queue_name   where its calls go; the default queue otherwise
    max_retries  tries after the first one that fails; `retry` takes a whole RetryPolicy
    timeout      seconds that the body may run
    priority     -100 to 100, kept with the call
    bind         True: the body gets a `task_metadata` keyword (TaskMetadata)
    unique       True: while a call with equal arguments is unfinished, another one is the same call
    run_once     True: never tried again, not even when its worker dies, whatever a call says of retries
    isolation    "process": run a sync function in a process of its own, which a timeout or a cancellation kills
    on_success   a task or chain to run after each success
    on_failure   a task to call, with the execution's id, after the last failure

    Raises TaskDefinitionError for a function that a worker could not find again.
    """
    if function is None:
        return functools.partial(_make_task, options)
    return _make_task({}, function)


@overload
def TaskDecorator(function: Callable[P, Coroutine[Any, Any, T]], /) -> RecordedTask[P, T]: ...
@overload
def TaskDecorator(function: Callable[P, T], /) -> RecordedTask[P, T]: ...
@overload
def TaskDecorator(
    *,
    bind: bool = False,
    queue_name: str | None = None,
    max_retries: int | None = None,
    on_success: AsSteps | None = None,
    project_id: str | None = None,
    topic_name: str | None = None,
    subscription_name: str | None = None,
    encoding: str = "utf-8",
) -> RecordedTaskMaker: ...
def TaskDecorator(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """`task` under django-i3tasks's name, with one difference: calling the task runs it through `sync_run`."""
    if function is None:
        return functools.partial(_make_recorded, options)
    return _make_recorded({}, function)


def _make_task(options: Mapping[str, Any], function: Callable[..., Any]) -> Task[Any, Any]:
    spec = register(function, _options(options))
    return AsyncTask(spec) if spec.is_coroutine else SyncTask(spec)


def _make_recorded(options: Mapping[str, Any], function: Callable[..., Any]) -> RecordedTask[Any, Any]:
    return RecordedTask(register(function, _options(options)))


def _options(given: Mapping[str, Any]) -> TaskOptions:
    options = dict(given)
    on_success: AsSteps | None = options.pop("on_success", None)
    on_failure: Steppable | None = options.pop("on_failure", None)
    try:
        return TaskOptions(
            **options,
            on_success=() if on_success is None else tuple(on_success.as_steps()),
            on_failure=None if on_failure is None else on_failure.as_step(),
        )
    except TypeError as error:
        known = ", ".join(TaskOptions.__dataclass_fields__)
        raise TaskDefinitionError(f"@task takes {known}; {error}.") from None

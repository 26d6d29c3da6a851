"""The options of `@task` and `@TaskDecorator`, and what these return, as type checkers see them: for them alone."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypedDict, TypeVar, overload

from ..core.retry import RetryPolicy
from ..core.steps import AsSteps, Steppable
from ..metadata import TaskMetadata
from ..registry import Isolation
from .base import AsyncTask, BoundAsyncTask, BoundSyncTask, RecordedTask, SyncTask

P = ParamSpec("P")
T = TypeVar("T")


class OtherKeywords(TypedDict, total=False):
    """The options of `@task` but `bind`; its docstring describes them."""

    queue_name: str | None
    max_retries: int | None
    retry: RetryPolicy | None
    timeout: float | None
    priority: int
    unique: bool
    run_once: bool
    isolation: Isolation
    sensitive: tuple[str, ...]
    cron: str | None
    on_success: AsSteps | None
    on_failure: Steppable | None


class TaskKeywords(OtherKeywords, total=False):
    """The options of `@task`."""

    bind: bool


class OtherDecoratorKeywords(OtherKeywords, total=False):
    """The options of `@TaskDecorator` but `bind`: those of `@task`, and four of django-i3tasks."""

    project_id: str | None
    topic_name: str | None
    subscription_name: str | None
    encoding: str


class TaskDecoratorKeywords(OtherDecoratorKeywords, total=False):
    """The options of `@TaskDecorator`."""

    bind: bool


class TaskMaker(Protocol):
    """`@task(...)` with options, waiting for its function."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> AsyncTask[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> SyncTask[P, T]: ...


class BoundTaskMaker(Protocol):
    """`@task(bind=True)`, waiting for its function. Callers do not pass `task_metadata`, also if it stands first."""

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[TaskMetadata, P], Coroutine[Any, Any, T]], /
    ) -> BoundAsyncTask[P, T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[TaskMetadata, P], T], /) -> BoundSyncTask[P, T]: ...
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


class BoundRecordedTaskMaker(Protocol):
    """`@TaskDecorator(bind=True)`, waiting for its function: see `BoundTaskMaker`."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[TaskMetadata, P], Coroutine[Any, Any, T]], /
    ) -> RecordedTask[P, T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[TaskMetadata, P], T], /) -> RecordedTask[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> RecordedTask[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> RecordedTask[P, T]: ...

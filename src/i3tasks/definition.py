"""`@task`: a function that can be called later, elsewhere.

    @task(queue_name="mail", max_retries=5)
    async def send_email(recipient: str, subject: str) -> str: ...

    await send_email.adelay("a@example.com", "Hi")

`delay` and its kin write rows in the caller's transaction; publishing follows its commit and is never waited for.
Every method that touches the database has an `a`-twin for coroutines.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from asgiref.sync import async_to_sync, markcoroutinefunction, sync_to_async
from django.db import transaction
from django.utils import timezone

from . import outbox
from .canvas import ChainHandle
from .clock import SYSTEM_CLOCK
from .conf import get_config
from .engine.inline import run_once, run_to_the_end
from .exceptions import ArgumentError, I3TasksError, TaskDefinitionError
from .models import TaskExecutionTry, TaskGroup
from .registry import TaskOptions, TaskSpec, register
from .retry import RetryPolicy
from .store.database import alias, rows
from .store.enqueue import NewExecution, insert, ref
from .values import encode_arguments

P = ParamSpec("P")
T = TypeVar("T")
Self = TypeVar("Self", bound="Task[Any, Any]")

GROUP_KEYWORD = "__i3group__"


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What `using(...)` sets for calls made through its result. None: as the task says."""

    queue_name: str | None = None
    run_after: datetime | None = None
    priority: int | None = None
    max_retries: int | None = None
    timeout: float | None = None

    def overrides(self) -> dict[str, Any]:
        """What must be kept in the row for the worker."""
        values = {"max_retries": self.max_retries, "timeout": self.timeout}
        return {name: value for name, value in values.items() if value is not None}


class Task(Generic[P, T]):
    """A registered task; `T` is what its body returns (for a coroutine function, what awaiting it gives)."""

    def __init__(self, spec: TaskSpec, options: CallOptions = CallOptions()) -> None:
        functools.update_wrapper(cast("Callable[..., Any]", self), spec.function)
        self.spec = spec
        self.call_options = options

    def __repr__(self) -> str:
        return f"<task {self.spec.path}>"

    def using(
        self: Self,
        *,
        queue_name: str | None = None,
        run_after: datetime | timedelta | float | None = None,
        priority: int | None = None,
        max_retries: int | None = None,
        timeout: float | None = None,
    ) -> Self:
        """The same task with other options for the calls made through it: `t.using(run_after=60).delay()`.

        `run_after` is an aware datetime, or a timedelta or seconds from the call on. What is not given stays.
        """
        given: dict[str, Any] = {
            "queue_name": queue_name,
            "run_after": None if run_after is None else _instant(run_after),
            "priority": priority,
            "max_retries": max_retries,
            "timeout": timeout,
        }
        changed = replace(self.call_options, **{name: value for name, value in given.items() if value is not None})
        get_config().queue(changed.queue_name)
        return type(self)(self.spec, changed)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> ChainHandle[T]:
        """Enqueue a call, as part of the caller's transaction. Raises ArgumentError for what JSON can't hold."""
        return self._enqueue([self._call(args, kwargs)])[0]

    async_run = delay

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> ChainHandle[T]:
        """`delay` for coroutines."""
        return await sync_to_async(self.delay)(*args, **kwargs)

    def delay_many(self, calls: Iterable[Sequence[Any] | Mapping[str, Any]]) -> list[ChainHandle[T]]:
        """Enqueue many calls in one transaction: each item is a call's positional arguments, or a dict of keywords."""
        return self._enqueue([self._call(*_split(call)) for call in calls])

    async def adelay_many(self, calls: Iterable[Sequence[Any] | Mapping[str, Any]]) -> list[ChainHandle[T]]:
        """`delay_many` for coroutines."""
        return await sync_to_async(self.delay_many)(calls)

    def sync_run(self, *args: P.args, **kwargs: P.kwargs) -> TaskExecutionTry:
        """Run the task here and now, recorded like any other run, with no retry. Raises what its body raises."""
        _refuse_in_loop("sync_run")
        task_try = self._insert_for_one_run(args, kwargs)
        _raise_error(async_to_sync(run_once)(task_try, outbox.send))
        return _reloaded(task_try.pk)

    async def arun(self, *args: P.args, **kwargs: P.kwargs) -> TaskExecutionTry:
        """`sync_run` for coroutines."""
        task_try = await sync_to_async(self._insert_for_one_run)(args, kwargs)
        _raise_error(await run_once(task_try, outbox.send))
        return await sync_to_async(_reloaded)(task_try.pk)

    def _enqueue(self, calls: Sequence[NewExecution]) -> list[ChainHandle[T]]:
        if not calls:
            return []
        tries = _insert(calls)
        if get_config().settings.force_sync:
            _refuse_in_loop("force_sync")
            for task_try in tries:
                async_to_sync(run_to_the_end)(task_try)
        else:
            _send_on_commit(tries)
        return [ChainHandle(task_try) for task_try in tries]

    def _insert_for_one_run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskExecutionTry:
        call = self._call(args, kwargs)
        return _insert([replace(call, run_after=None, overrides={**call.overrides, "max_retries": 0})])[0]

    def _call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> NewExecution:
        keywords = dict(kwargs)
        group = keywords.pop(GROUP_KEYWORD, None)
        if group is not None and not isinstance(group, TaskGroup):
            raise ArgumentError(f"{GROUP_KEYWORD} must be a TaskGroup, not {group!r:.80}.")
        encoded_args, encoded_kwargs = encode_arguments(args, keywords)
        options, spec = self.call_options, self.spec
        return NewExecution(
            module_name=spec.module_name,
            func_name=spec.func_name,
            args=encoded_args,
            kwargs=encoded_kwargs,
            queue_name=self._queue_name(),
            run_after=options.run_after,
            priority=spec.options.priority if options.priority is None else options.priority,
            overrides=options.overrides(),
            task_group=group,
        )

    def _queue_name(self) -> str | None:
        name = self.call_options.queue_name or self.spec.options.queue_name
        return get_config().queue(name).name if name or not self.spec.options.topic_name else None


class SyncTask(Task[P, T]):
    """A task whose body is a plain function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function itself: no row, no queue."""
        return cast(T, self.spec.function(*args, **kwargs))


class AsyncTask(Task[P, T]):
    """A task whose body is a coroutine function."""

    def __init__(self, spec: TaskSpec, options: CallOptions = CallOptions()) -> None:
        super().__init__(spec, options)
        markcoroutinefunction(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Call the function itself: no row, no queue."""
        return cast("Coroutine[Any, Any, T]", self.spec.function(*args, **kwargs))


class RecordedTask(Task[P, T]):
    """What `@TaskDecorator` makes: calling it is `sync_run`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> TaskExecutionTry:
        return self.sync_run(*args, **kwargs)


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
) -> TaskMaker: ...
def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task.

    queue_name   where its calls go; the default queue otherwise
    max_retries  tries after the first one that fails; `retry` takes a whole RetryPolicy
    timeout      seconds that the body may run
    priority     -100 to 100, kept with the call
    bind         True: the body gets a `task_metadata` keyword (TaskMetadata)

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


def _options(options: Mapping[str, Any]) -> TaskOptions:
    try:
        return TaskOptions(**options)
    except TypeError as error:
        known = ", ".join(TaskOptions.__dataclass_fields__)
        raise TaskDefinitionError(f"@task takes {known}; {error}.") from None


def _instant(run_after: datetime | timedelta | float) -> datetime:
    if isinstance(run_after, datetime):
        if timezone.is_naive(run_after):
            raise ArgumentError(
                "run_after is a datetime without a time zone. Pass an aware one (timezone.now() + ...)."
            )
        return run_after.astimezone(UTC)
    delay = run_after if isinstance(run_after, timedelta) else timedelta(seconds=run_after)
    return SYSTEM_CLOCK.now() + delay


def _split(call: Sequence[Any] | Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    if isinstance(call, Mapping):
        return (), call
    if isinstance(call, (str, bytes)) or not isinstance(call, Sequence):
        raise ArgumentError(f"Each item is the arguments of one call, (1, 2) or {{'x': 1}}, not {call!r:.80}.")
    return call, {}


def _insert(calls: Sequence[NewExecution]) -> list[TaskExecutionTry]:
    return insert(calls, now=SYSTEM_CLOCK.now(), grace_seconds=get_config().settings.publish_grace_seconds)


def _send_on_commit(tries: Iterable[TaskExecutionTry]) -> None:
    now = SYSTEM_CLOCK.now()
    due = [ref(task_try) for task_try in tries if task_try.run_after is None or task_try.run_after <= now]

    def send() -> None:  # a function and not a partial: Django names it when it fails
        outbox.send(due)

    transaction.on_commit(send, using=alias(), robust=True)


def _raise_error(report: Any) -> None:
    if report.error is not None:
        raise report.error


def _reloaded(try_id: int) -> TaskExecutionTry:
    task_try: TaskExecutionTry = rows(TaskExecutionTry).select_related("task_execution", "result").get(pk=try_id)
    return task_try


def _refuse_in_loop(name: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise I3TasksError(f"{name} can't be used inside a coroutine. Await the async method instead: adelay, or arun.")

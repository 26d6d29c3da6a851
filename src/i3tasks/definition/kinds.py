"""Tasks: what `@task` turns a function into."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Generic, ParamSpec, TypeVar, cast

from asgiref.sync import async_to_sync, markcoroutinefunction, sync_to_async

from ..canvas import Signature
from ..conf import get_config
from ..engine.executor import Report
from ..engine.inline import run_once
from ..engine.launch import launch, launch_refs, refuse_in_loop
from ..exceptions import ArgumentError
from ..handles import ChainHandle
from ..models import TaskExecutionTry, TaskGroup
from ..registry import TaskSpec, option_problems
from ..retry import RetryPolicy
from ..steps import Step, Steppable, wants_result
from ..store.database import atomic, rows
from ..store.enqueue import NewExecution, queue_of
from ..store.refs import TryRef
from ..values import encode_arguments
from ..when import When
from .options import AS_THE_TASK_SAYS, CallOptions
from .writing import is_keyed, write, write_one

P = ParamSpec("P")
T = TypeVar("T")
Self = TypeVar("Self", bound="Task[Any, Any]")
Calls = Iterable[Sequence[Any] | Mapping[str, Any]]

GROUP_KEYWORD = "__i3group__"


class Task(Generic[P, T]):
    """A registered task; `T` is what its body returns (for a coroutine function, what awaiting it gives)."""

    def __init__(self, spec: TaskSpec, options: CallOptions = AS_THE_TASK_SAYS) -> None:
        functools.update_wrapper(cast("Callable[..., Any]", self), spec.function)
        self.spec = spec
        self.call_options = options

    def __repr__(self) -> str:
        return f"<task {self.spec.path}>"

    def using(
        self: Self,
        *,
        queue_name: str | None = None,
        run_after: When | None = None,
        until: When | None = None,
        priority: int | None = None,
        max_retries: int | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        idempotency_key: str | None = None,
        idempotency_period: timedelta | None = None,
        on_failure: Steppable | None = None,
    ) -> Self:
        """The same task with other options for the calls made through it: `t.using(run_after=60).delay()`.

        run_after           not before: an aware datetime, or a timedelta or seconds from the call on
        until               run at a random instant between `run_after` (or now) and this one: spreads a crowd
        max_retries, retry  instead of the task's own
        timeout             seconds that the body may run
        idempotency_key     calls with one key, within `idempotency_period` (a day), are one: the later ones get the
                            handle of the first
        on_failure          called with the execution's id when it has failed for good

        What is not given stays as it is.
        """
        get_config().queue(queue_name)
        given: dict[str, Any] = {
            "queue_name": queue_name,
            "run_after": run_after,
            "until": until,
            "priority": priority,
            "max_retries": max_retries,
            "retry": retry,
            "timeout": timeout,
            "idempotency_key": idempotency_key,
            "idempotency_period": idempotency_period,
            "on_failure": None if on_failure is None else on_failure.as_step(),
        }
        changes = {name: value for name, value in given.items() if value is not None}
        changed = replace(self.call_options, **changes)
        for problem in option_problems(changed):
            raise ArgumentError(f"A call's {problem}.")
        changed.instant()  # refuses what is no time
        return type(self)(self.spec, changed)

    # ------------------------------------------------------------------------------------------------ enqueueing

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> ChainHandle[T]:
        """Enqueue a call, as part of the caller's transaction. Raises ArgumentError for what JSON can't hold."""
        return self._enqueue([self._call(args, kwargs)])[0]

    async_run = delay

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> ChainHandle[T]:
        """`delay` for coroutines."""
        return await sync_to_async(self.delay)(*args, **kwargs)

    def delay_until(self, when: When, /, *args: P.args, **kwargs: P.kwargs) -> ChainHandle[T]:
        """`delay`, not to run before `when`: an aware datetime, or a timedelta or seconds from now on."""
        return self.using(run_after=when).delay(*args, **kwargs)

    async def adelay_until(self, when: When, /, *args: P.args, **kwargs: P.kwargs) -> ChainHandle[T]:
        """`delay_until` for coroutines."""
        return await self.using(run_after=when).adelay(*args, **kwargs)

    def delay_many(self, calls: Calls) -> list[ChainHandle[T]]:
        """Enqueue many calls in one transaction: each item is a call's positional arguments, or a dict of keywords."""
        return self._enqueue([self._call(*_split(call)) for call in calls])

    async def adelay_many(self, calls: Calls) -> list[ChainHandle[T]]:
        """`delay_many` for coroutines."""
        return await sync_to_async(self.delay_many)(calls)

    # ------------------------------------------------------------------------------------------- here and now

    def sync_run(self, *args: P.args, **kwargs: P.kwargs) -> TaskExecutionTry:
        """Run the task here and now, recorded like any other run, with no retry. Raises what its body raises."""
        refuse_in_loop("sync_run")
        task_try = self._write_for_one_run(args, kwargs)
        due: list[TryRef] = []
        report = async_to_sync(run_once)(task_try, due.extend)
        launch_refs(due)
        _raise_error(report)
        return _reloaded(task_try.pk)

    async def arun(self, *args: P.args, **kwargs: P.kwargs) -> TaskExecutionTry:
        """`sync_run` for coroutines."""
        task_try = await sync_to_async(self._write_for_one_run)(args, kwargs)
        due: list[TryRef] = []
        report = await run_once(task_try, due.extend)
        await sync_to_async(launch_refs)(due)
        _raise_error(report)
        return await sync_to_async(_reloaded)(task_try.pk)

    # ----------------------------------------------------------------------------------------------- workflows

    def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature[T]:
        """The task bound to arguments, for a workflow; `RESULT` as an argument is what the step before returns."""
        return Signature(self.as_step(*args, **kwargs))

    def build_chain(self, *args: P.args, **kwargs: P.kwargs) -> ChainHandle[T]:
        """A chain that begins with this call and is not enqueued: for a group's callback, or `on_success`."""
        return ChainHandle(None, [self.as_step(*args, **kwargs)])

    def as_step(self, *args: Any, **kwargs: Any) -> Step:
        """The step that calls the task with these arguments."""
        call = self._call(args, kwargs)
        if call.run_after is not None or is_keyed(self.spec, self.call_options):
            raise ArgumentError(
                "A workflow's step runs in its turn: run_after, until, idempotency_key and unique don't fit."
            )
        step = {"module_name": call.module_name, "func_name": call.func_name, "args": call.args, "kwargs": call.kwargs}
        # What the task itself says is looked up when the step begins, so that a plain step has just those four keys.
        extras = {
            "queue_name": self.call_options.queue_name,
            "priority": self.call_options.priority,
            "options": call.options or None,
            "task_group_id": call.task_group_id,
        }
        return {**step, **{name: value for name, value in extras.items() if value is not None}}

    def as_steps(self) -> list[Step]:
        """The one step that calls the task without arguments."""
        return [self.as_step()]

    # ------------------------------------------------------------------------------------------------- inside

    def _enqueue(self, calls: Sequence[NewExecution]) -> list[ChainHandle[T]]:
        for call in calls:
            if wants_result({"args": call.args, "kwargs": call.kwargs}):
                raise ArgumentError("RESULT has a meaning in a later step only, as in chain(a.s(), b.s(RESULT)).")
        if not calls:
            return []
        with atomic():
            if is_keyed(self.spec, self.call_options):
                answers = [write_one(call, self.spec, self.call_options) for call in calls]
            else:
                answers = [(task_try, True) for task_try in write(calls)]
        launch([task_try for task_try, is_new in answers if is_new])
        return [ChainHandle(task_try) for task_try, _ in answers]

    def _write_for_one_run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskExecutionTry:
        call = self._call(args, kwargs)
        return write([replace(call, run_after=None, options={**call.options, "max_retries": 0})])[0]

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
            run_after=options.instant(),
            priority=spec.options.priority if options.priority is None else options.priority,
            options=options.in_row(),
            chain=spec.options.on_success,
            task_group_id=None if group is None else group.pk,
        )

    def _queue_name(self) -> str | None:
        name = self.call_options.queue_name or queue_of(self.spec)
        return None if name is None else get_config().queue(name).name


class SyncTask(Task[P, T]):
    """A task whose body is a plain function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function itself: no row, no queue."""
        return cast(T, self.spec.function(*args, **kwargs))


class AsyncTask(Task[P, T]):
    """A task whose body is a coroutine function."""

    def __init__(self, spec: TaskSpec, options: CallOptions = AS_THE_TASK_SAYS) -> None:
        super().__init__(spec, options)
        markcoroutinefunction(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Call the function itself: no row, no queue."""
        return cast("Coroutine[Any, Any, T]", self.spec.function(*args, **kwargs))


class RecordedTask(Task[P, T]):
    """What `@TaskDecorator` makes: calling it is `sync_run`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> TaskExecutionTry:
        return self.sync_run(*args, **kwargs)


def _split(call: Sequence[Any] | Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    if isinstance(call, Mapping) and all(isinstance(name, str) for name in call):
        return (), call
    if isinstance(call, (str, bytes)) or not isinstance(call, Sequence):
        raise ArgumentError(f"Each item is the arguments of one call, (1, 2) or {{'x': 1}}, not {call!r:.80}.")
    return call, {}


def _raise_error(report: Report) -> None:
    if report.error is not None:
        raise report.error


def _reloaded(try_id: int) -> TaskExecutionTry:
    task_try: TaskExecutionTry = rows(TaskExecutionTry).select_related("task_execution", "result").get(pk=try_id)
    return task_try

"""Task: a registered function with the methods that call it later, `delay` first of all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from asgiref.sync import async_to_sync, markcoroutinefunction, sync_to_async

from ..conf import get_config
from ..core.clock import current_clock
from ..engine.launch import launch_refs, refuse_in_loop
from ..exceptions import ArgumentError
from ..models import TaskExecutionTry, TaskGroup
from ..registry import TaskSpec, option_problems
from ..store.database import rows

if TYPE_CHECKING:
    from ..core.retry import RetryPolicy
    from ..core.steps import Step, Steppable
    from ..engine.report import Report
    from ..metadata import TaskMetadata
    from ..store.enqueue import NewExecution
    from ..store.requests import TryRef
    from .canvas import Signature
    from .common import Common
    from .handles import ChainHandle
    from .options import CallOptions
    from .when import When

P = ParamSpec("P")
T = TypeVar("T")
Self = TypeVar("Self", bound="Task[Any, Any]")
Calls = Iterable[Sequence[Any] | Mapping[str, Any]]

_NOT_FOR_ONE_RUN = ("run_after", "until", "idempotency_key", "max_retries", "retry")


class Task(Generic[P, T]):
    """A registered task; `T` is what its body returns (for a coroutine function, what awaiting it gives)."""

    def __init__(self, spec: TaskSpec, options: CallOptions | None = None) -> None:
        functools.update_wrapper(cast("Callable[..., Any]", self), spec.function)
        self.spec = spec
        if options is not None:
            self._call_options = options
        self._common: Common | None = None

    @functools.cached_property
    def _call_options(self) -> CallOptions:
        """The options of the calls that are made through this object: at first, as the task says."""
        from .options import AS_THE_TASK_SAYS  # late: a process that only defines tasks makes no calls

        return AS_THE_TASK_SAYS

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
        until               run at a random instant between `run_after` (or now) and this one: spreads many calls
        max_retries, retry  instead of the task's own
        timeout             seconds that the body may run
        idempotency_key     all calls of the task with the same key, within `idempotency_period` (a day), are one call:
                            the later ones get the handle of the first
        on_failure          called with the execution's id after its last try has failed

        Options that are not given stay as they are.
        """
        from .when import check_period  # late: a process that only defines tasks makes no calls
        from .workflow_parts import failure_step

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
            "on_failure": None if on_failure is None else failure_step("on_failure", on_failure),
        }
        changes = {name: value for name, value in given.items() if value is not None}
        changed = self._call_options._replace(**changes)
        for problem in option_problems(changed):
            raise ArgumentError(f"A call's {problem}.")
        get_config().queue(queue_name)
        if changed.idempotency_period is not None and changed.idempotency_key is None:
            raise ArgumentError("idempotency_period is the time for which an idempotency_key counts: give both.")
        if changed.idempotency_period is not None:
            check_period("idempotency_period", changed.idempotency_period)
        changed.instant()  # raises for a value that is no time
        return type(self)(self.spec, changed)

    # ------------------------------------------------------------------------------------------------ enqueueing

    @overload
    def delay(self, /, *args: P.args, **kwargs: P.kwargs) -> ChainHandle[T]: ...
    @overload
    def delay(self, /, *args: Any, __i3group__: TaskGroup, **kwargs: Any) -> ChainHandle[T]: ...
    def delay(self, /, *args: Any, **kwargs: Any) -> ChainHandle[T]:
        """Enqueue a call, as part of the caller's transaction. Raises ArgumentError for values that JSON can't hold."""
        from .writing import write  # late, at the first call: a process that only defines tasks does not need it

        refuse_in_loop("delay", "adelay")
        return write([self._call(args, kwargs)])[0]

    async_run = delay

    @overload
    async def adelay(self, /, *args: P.args, **kwargs: P.kwargs) -> ChainHandle[T]: ...
    @overload
    async def adelay(self, /, *args: Any, __i3group__: TaskGroup, **kwargs: Any) -> ChainHandle[T]: ...
    async def adelay(self, /, *args: Any, **kwargs: Any) -> ChainHandle[T]:
        """`delay` for coroutines. Outside of transactions, those that wait together are written together."""
        from .writing import awrite

        call = self._shareable(args, kwargs)
        if call is None:
            return await sync_to_async(partial(self.delay, *args, **kwargs))()
        return await awrite(call)

    def delay_until(self, when: When, /, *args: P.args, **kwargs: P.kwargs) -> ChainHandle[T]:
        """`delay`, not to run before `when`: an aware datetime, or a timedelta or seconds from now on."""
        refuse_in_loop("delay_until", "adelay_until")
        return self.using(run_after=when).delay(*args, **kwargs)

    async def adelay_until(self, when: When, /, *args: P.args, **kwargs: P.kwargs) -> ChainHandle[T]:
        """`delay_until` for coroutines."""
        return await self.using(run_after=when).adelay(*args, **kwargs)

    def delay_many(self, calls: Calls) -> list[ChainHandle[T]]:
        """Enqueue many calls in one transaction: each item is a call's positional arguments, or a dict of keywords."""
        from .writing import write

        refuse_in_loop("delay_many", "adelay_many")
        return write(self._calls(map(split, calls)))

    async def adelay_many(self, calls: Calls) -> list[ChainHandle[T]]:
        """`delay_many` for coroutines."""
        return await sync_to_async(self.delay_many)(calls)

    def discard(self, *, min_tries: int = 0) -> int:
        """Delete all calls of the task that wait, are put off, or wait for their next try. Returns their number.

        With `min_tries`, only calls of which at least so many tries have begun; with `using(queue_name=)`, only calls
        on that queue. Calls that a group or a next step still needs stay: cancel those.
        """
        from .discarding import discard_waiting

        refuse_in_loop("discard", "adiscard")
        return discard_waiting(self.spec, self._call_options, min_tries)

    async def adiscard(self, *, min_tries: int = 0) -> int:
        """`discard` for coroutines."""
        return await sync_to_async(self.discard)(min_tries=min_tries)

    # ----------------------------------------------------------------------------------- running it in this process

    def sync_run(self, /, *args: P.args, **kwargs: P.kwargs) -> TaskExecutionTry:
        """Run the task here and now, recorded like any other run, without retries. Raises the body's own error."""
        refuse_in_loop("sync_run", "arun")
        from ..engine.inline import run_try  # the engine is imported by processes that run tasks

        task_try = self._write_for_one_run(args, kwargs)
        due: list[TryRef] = []
        report = async_to_sync(run_try)(task_try, due.extend)
        launch_refs(due)
        _raise_error(report)
        return _reloaded(task_try.pk)

    async def arun(self, /, *args: P.args, **kwargs: P.kwargs) -> TaskExecutionTry:
        """`sync_run` for coroutines."""
        from ..engine.inline import run_try

        task_try = await sync_to_async(self._write_for_one_run)(args, kwargs)
        due: list[TryRef] = []
        report = await run_try(task_try, due.extend)
        await sync_to_async(launch_refs)(due)
        _raise_error(report)
        return await sync_to_async(_reloaded)(task_try.pk)

    # ----------------------------------------------------------------------------------------------- workflows

    def s(self, /, *args: P.args, **kwargs: P.kwargs) -> Signature[T]:
        """The task bound to arguments, for a workflow. The argument `RESULT` stands for the previous step's result.

        Raises ArgumentError for arguments that the task does not take, neither as a step nor as a failure callback.
        """
        from .canvas import signature_of

        return signature_of(self.spec, self._looked_up, args, kwargs)

    def build_chain(self, /, *args: P.args, **kwargs: P.kwargs) -> ChainHandle[T]:
        """A chain that begins with this call and is not enqueued: for a group's callback, or `on_success`."""
        from .handles import ChainHandle

        return ChainHandle(None, [self.as_step(*args, **kwargs)])

    def as_step(self, /, *args: Any, **kwargs: Any) -> Step:
        """The step that calls the task with these arguments. Raises ArgumentError if it does not take them."""
        from .arguments import argument_problem, step_of

        if found := argument_problem(self.spec, args, kwargs):
            raise ArgumentError(found)
        return step_of(self._looked_up(), args, kwargs)

    def _failure_step(self) -> Step:
        """The step that calls the task with the id of a failed execution."""
        from .arguments import argument_problem, step_of
        from .canvas import Signature

        problem = argument_problem(self.spec, (None,), {})
        as_failure: Signature[T] = Signature(step_of(self._looked_up(), (), {}), _failure_problem=problem)
        return as_failure._failure_step()

    def as_steps(self) -> list[Step]:
        """The one step that calls the task without arguments."""
        return [self.as_step()]

    # ------------------------------------------------------------------------------------------------- inside

    def _shareable(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> NewExecution | None:
        """The call, if it may share a transaction. None: it has a key, it runs at once, or `delay` refuses it."""
        if self._call_options.idempotency_key is not None or self.spec.options.unique:
            return None
        try:
            return None if get_config().settings.force_sync else self._call(args, kwargs)
        except Exception:
            return None

    def _write_for_one_run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskExecutionTry:
        from ..store.enqueue import enqueue

        options = self._call_options
        unfit = [name for name in _NOT_FOR_ONE_RUN if getattr(options, name) is not None]
        if unfit:
            raise ArgumentError(f"sync_run and arun run the task once, at once: {unfit[0]} does not fit. Use delay.")
        call = self._call(args, kwargs)
        once = replace(call, run_after=None, key=None, options={**call.options, "max_retries": 0})
        [(task_try, _)] = enqueue([once], now=current_clock().now())
        return task_try

    def _call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> NewExecution:
        return self._calls([(args, kwargs)])[0]

    def _calls(self, arguments: Iterable[tuple[Sequence[Any], Mapping[str, Any]]]) -> list[NewExecution]:
        from .making import calls_of

        return calls_of(self._looked_up(), arguments)

    def _looked_up(self) -> Common:
        common = self._common
        if common is None or common.config is not get_config():
            from .common import common_of

            common = self._common = common_of(self.spec, self._call_options)
        return common


class SyncTask(Task[P, T]):
    """A task whose body is a plain function."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function itself: no row, no queue."""
        return cast(T, self.spec.function(*args, **kwargs))


class AsyncTask(Task[P, T]):
    """A task whose body is a coroutine function."""

    def __init__(self, spec: TaskSpec, options: CallOptions | None = None) -> None:
        super().__init__(spec, options)
        markcoroutinefunction(self)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Call the function itself: no row, no queue."""
        return cast("Coroutine[Any, Any, T]", self.spec.function(*args, **kwargs))


class BoundSyncTask(Task[P, T]):
    """A task with `bind=True` whose plain function takes `task_metadata` first; `P` are the parameters after it."""

    def __call__(self, task_metadata: TaskMetadata | None = None, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function itself: no row, no queue."""
        return cast(T, self.spec.function(*args, task_metadata=task_metadata, **kwargs))


class BoundAsyncTask(Task[P, T]):
    """A task with `bind=True` whose coroutine function takes `task_metadata` first; `P` are the parameters after it."""

    def __init__(self, spec: TaskSpec, options: CallOptions | None = None) -> None:
        super().__init__(spec, options)
        markcoroutinefunction(self)

    def __call__(
        self, task_metadata: TaskMetadata | None = None, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """Call the function itself: no row, no queue."""
        return cast("Coroutine[Any, Any, T]", self.spec.function(*args, task_metadata=task_metadata, **kwargs))


class RecordedTask(Task[P, T]):
    """A task made by `@TaskDecorator`: calling it is `sync_run`."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> TaskExecutionTry:
        return self.sync_run(*args, **kwargs)


def split(call: Sequence[Any] | Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Positional and keyword arguments of an item of `delay_many`. Raises ArgumentError."""
    if type(call) is tuple:  # as most are
        return call, {}
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

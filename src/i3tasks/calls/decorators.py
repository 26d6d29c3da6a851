"""`@task`, and `@TaskDecorator`, its older name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack, overload

from ..core.text import is_utf8
from ..exceptions import ArgumentError, TaskDefinitionError
from ..registry import TaskOptions, register
from .base import AsyncTask, BoundAsyncTask, BoundSyncTask, RecordedTask, SyncTask, Task

if TYPE_CHECKING:
    from ..core.steps import AsSteps, Steppable
    from .keywords import (
        BoundRecordedTaskMaker,
        BoundTaskMaker,
        OtherDecoratorKeywords,
        OtherKeywords,
        RecordedTaskMaker,
        TaskDecoratorKeywords,
        TaskKeywords,
        TaskMaker,
    )

P = ParamSpec("P")
T = TypeVar("T")


@overload
# A coroutine function is the narrower case, so it comes first.
def task(  # type: ignore[overload-overlap]
    function: Callable[P, Coroutine[Any, Any, T]], /, **options: Unpack[TaskKeywords]
) -> AsyncTask[P, T]: ...
@overload
def task(function: Callable[P, T], /, **options: Unpack[TaskKeywords]) -> SyncTask[P, T]: ...
@overload
def task(  # type: ignore[overload-overlap]
    *, bind: Literal[True], **options: Unpack[OtherKeywords]
) -> BoundTaskMaker: ...
@overload
def task(**options: Unpack[TaskKeywords]) -> TaskMaker: ...
def task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task.

    queue_name   the queue of its calls; by default the default queue
    max_retries  further tries after a failed first one; `retry` takes a whole RetryPolicy
    timeout      seconds that the body may run
    priority     -100 to 100: of the calls that wait on a queue, the one with the highest starts first
    bind         True: the body gets `task_metadata` (TaskMetadata), its first parameter or one that it takes by keyword
    unique       True: a call with arguments equal to those of an unfinished call is the same call
    run_once     True: never tried again, not even when its worker dies; a call's retries do not count
    isolation    "process": run a sync function in a process of its own, which a timeout or a cancellation ends
    sensitive    parameters whose values are hidden wherever calls are shown, and in the texts of errors
    cron         run it without arguments whenever this is due, such as "@daily", in the project's time zone
    on_success   a task or chain to run after each success
    on_failure   a task to call, with the execution's id, after the last try has failed

    Raises TaskDefinitionError for a function that a worker could not find again.
    """
    if function is None:
        return functools.partial(_make_task, options)
    return _make_task(options, function)


@overload
def TaskDecorator(
    function: Callable[P, Coroutine[Any, Any, T]], /, **options: Unpack[TaskDecoratorKeywords]
) -> RecordedTask[P, T]: ...
@overload
def TaskDecorator(function: Callable[P, T], /, **options: Unpack[TaskDecoratorKeywords]) -> RecordedTask[P, T]: ...
@overload
def TaskDecorator(  # type: ignore[overload-overlap]
    *, bind: Literal[True], **options: Unpack[OtherDecoratorKeywords]
) -> BoundRecordedTaskMaker: ...
@overload
def TaskDecorator(**options: Unpack[TaskDecoratorKeywords]) -> RecordedTaskMaker: ...
def TaskDecorator(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """`task` under its name in django-i3tasks, with one difference: calling the task runs it through `sync_run`.

    topic_name         publish the task's calls to this topic instead of a queue's; i3tasks neither makes nor reads it
    project_id         the Google Cloud project of the topic; by default that of PUBSUB_CONFIG
    subscription_name  the subscription of the task's queue; a check warns if the queue has another one
    encoding           "utf-8", the only encoding of messages
    """
    if function is None:
        return functools.partial(_make_recorded, options)
    return _make_recorded(options, function)


def _make_task(options: Mapping[str, Any], function: Callable[..., Any]) -> Task[Any, Any]:
    spec = register(function, options_of(options))
    if spec.gets_metadata_first:
        return BoundAsyncTask(spec) if spec.is_coroutine else BoundSyncTask(spec)
    return AsyncTask(spec) if spec.is_coroutine else SyncTask(spec)


def _make_recorded(options: Mapping[str, Any], function: Callable[..., Any]) -> RecordedTask[Any, Any]:
    return RecordedTask(register(function, options_of(options)))


def options_of(given: Mapping[str, Any]) -> TaskOptions:
    """The options as the registry has them; None stands for one that is not given. Raises TaskDefinitionError."""
    _require_known(given)
    options = {name: value for name, value in given.items() if value is not None}
    _require_utf8(given.get("encoding", "utf-8"))
    options.pop("encoding", None)
    if isinstance(options.get("sensitive"), list):
        options["sensitive"] = tuple(options["sensitive"])
    if "on_success" in options or "on_failure" in options:
        options |= _hooks(options.pop("on_success", None), options.pop("on_failure", None))
    return TaskOptions(**options)


def _hooks(on_success: AsSteps | None, on_failure: Steppable | None) -> dict[str, Any]:
    """The options `on_success` and `on_failure` as steps."""
    from .workflow_parts import failure_step, steps_of  # late: most tasks have neither

    try:
        return {
            "on_success": () if on_success is None else tuple(steps_of("on_success", on_success)),
            "on_failure": None if on_failure is None else failure_step("on_failure", on_failure),
        }
    except ArgumentError as error:
        raise TaskDefinitionError(str(error)) from error


def _require_known(names: Iterable[str]) -> None:
    known = [*TaskOptions.__match_args__, "encoding"]
    for name in names:
        if name not in known:
            import difflib

            close = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"It takes {', '.join(known)}."
            raise TaskDefinitionError(f"@task has no option {name!r}. {hint}")


def _require_utf8(encoding: object) -> None:
    if not is_utf8(encoding):
        raise TaskDefinitionError(f"Messages are UTF-8: leave encoding out, or write 'utf-8', not {encoding!r:.80}.")

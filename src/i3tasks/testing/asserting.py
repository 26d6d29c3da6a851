"""Assertions about enqueued calls, read from the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from ..conf import get_config
from ..core import binding
from ..core.clock import current_clock
from ..core.values import encode_arguments, shown, shown_keywords
from ..exceptions import ArgumentError
from ..models import TaskExecution, TryState
from ..registry import TaskSpec, registered
from ..store.database import rows

TOLERANCE = timedelta(seconds=2)
SHOWN = 20


def all_enqueued(
    task: Any = None,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    queue: str | None = None,
    run_after: datetime | timedelta | None = None,
    waiting: bool = False,
) -> list[TaskExecution]:
    """The calls that match, in the order in which they were enqueued.

    task       a task of i3tasks or of Django's framework; None: any
    args       the call's arguments, together with `kwargs`, however they were spelt; None for both: any
    queue      the name of the queue
    run_after  the instant that the call waits for, give or take two seconds, or its distance from now
    waiting    True: only calls that have not begun; else finished ones count, too
    """
    found = rows(TaskExecution).order_by("pk")
    spec = None if task is None else _spec(task)
    if spec is not None:
        found = found.filter(task_path=spec.module_name, task_name=spec.func_name)
    if queue is not None:
        found = found.filter(queue_name=get_config().queue(queue).name)
    if waiting:
        found = found.filter(TryState.PENDING.condition("tries__")).distinct()
    if run_after is not None:
        instant = current_clock().now() + run_after if isinstance(run_after, timedelta) else run_after
        found = found.filter(tries__run_after__range=(instant - TOLERANCE, instant + TOLERANCE)).distinct()
    if args is None and kwargs is None:
        return list(found)
    if spec is None:
        raise ArgumentError("args and kwargs are those of a task: say which one.")
    wanted = _bound(spec, args or (), kwargs or {})
    return [call for call in found if binding.by_parameter(spec.function, call.task_args, call.task_kwargs) == wanted]


def assert_enqueued(task: Any = None, *, count: int | None = None, **which: Any) -> list[TaskExecution]:
    """Assert that calls were enqueued that match, `count` of them if it is given; returns them.

    Takes what `all_enqueued` takes. A failure lists what was enqueued instead.
    """
    __tracebackhide__ = True
    found = all_enqueued(task, **which)
    if count is None and not found:
        raise AssertionError(f"No call {_described(task, which)} was enqueued. {_enqueued()}")
    if count is not None and len(found) != count:
        raise AssertionError(f"{len(found)} calls {_described(task, which)} were enqueued, not {count}. {_enqueued()}")
    return found


def refute_enqueued(task: Any = None, **which: Any) -> None:
    """Assert that no call was enqueued that matches. Takes what `all_enqueued` takes."""
    __tracebackhide__ = True
    assert_enqueued(task, count=0, **which)


def _spec(task: Any) -> TaskSpec:
    spec = getattr(task, "spec", None)
    if isinstance(spec, TaskSpec):
        return spec
    function = getattr(task, "func", None)  # a task of Django's framework
    if function is None:
        raise ArgumentError(f"{task!r:.80} is no task. Pass the task itself, not its name or its result.")
    return registered(function.__module__, function.__name__)


def _bound(spec: TaskSpec, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    if problem := spec.argument_problem(args, kwargs):
        raise ArgumentError(problem)
    limit = get_config().settings.maximum_payload_bytes
    return binding.by_parameter(spec.function, *encode_arguments(args, kwargs, limit=limit))


def _described(task: Any, which: Mapping[str, Any]) -> str:
    given = [f"{name}={value!r}" for name, value in which.items() if value not in (None, False)]
    path = "" if task is None else f"of {_spec(task).path}"
    return " ".join(filter(None, [path, f"with {', '.join(given)}" if given else ""]))


def _enqueued() -> str:
    calls = [_line(call) for call in rows(TaskExecution).order_by("pk")[: SHOWN + 1]]
    if not calls:
        return "Nothing was enqueued."
    more = ["..."] if len(calls) > SHOWN else []
    return "\n".join(["Enqueued were:", *calls[:SHOWN], *more])


def _line(call: TaskExecution) -> str:
    values = [repr(value) for value in shown(call.task_args)]
    values += [f"{name}={value!r}" for name, value in shown_keywords(call.task_kwargs).items()]
    return f"  {call.task_path}.{call.task_name}({', '.join(values)}) on {call.queue_name}"

"""New executions and their first tries, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ..conf import get_config
from ..models import TaskExecution, TaskExecutionTry
from ..registry import TaskSpec, find
from ..steps import Step
from .database import atomic, rows
from .refs import TryRef


@dataclass(frozen=True, slots=True)
class Origin:
    """What in its workflow a step came after, or is a part of. Nothing: it is the first, or a callback of failure."""

    previous_id: int | None = None
    previous_group_id: int | None = None
    part_of_id: int | None = None


FIRST = Origin()


@dataclass(frozen=True, slots=True)
class NewExecution:
    """A call, ready to be written. Arguments are JSON data."""

    module_name: str
    func_name: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue_name: str | None = None
    run_after: datetime | None = None
    priority: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    chain: Sequence[Step] = ()
    task_group_id: int | None = None
    group_index: int | None = None
    origin: Origin = FIRST


def from_step(step: Step, rest: Sequence[Step], origin: Origin = FIRST) -> NewExecution:
    """The call that a step describes, with `rest` to follow it. The task's own `on_success` comes first.

    A step names a task that may be unknown here; then its execution fails, and nothing else.
    """
    module_name, func_name = str(step.get("module_name", "")), str(step.get("func_name", ""))
    spec = find(module_name, func_name)
    own = () if spec is None else spec.options.on_success
    return NewExecution(
        module_name=module_name,
        func_name=func_name,
        args=step.get("args") or [],
        kwargs=step.get("kwargs") or {},
        queue_name=step.get("queue_name") or queue_of(spec),
        priority=step.get("priority", 0 if spec is None else spec.options.priority),
        options=step.get("options") or {},
        chain=[*own, *rest],
        task_group_id=step.get("task_group_id"),
        group_index=step.get("group_index"),
        origin=origin,
    )


def queue_of(spec: TaskSpec | None) -> str | None:
    """The name of the queue that the task's calls go to unless they say otherwise; None if it names a topic instead."""
    own = None if spec is None else spec.options.queue_name
    if own is None and spec is not None and spec.options.topic_name:
        return None
    return own or get_config().queue(None).name


def insert(calls: Sequence[NewExecution], *, now: datetime, grace_seconds: float) -> list[TaskExecutionTry]:
    """Write an execution and its first try for each call: two statements, or as many as SQLite's limits ask for.

    `now` is the caller's clock, which costs no query. Until a publish is confirmed, the dispatcher takes a try over
    `grace_seconds` from `now`.
    """
    with atomic():
        executions = rows(TaskExecution).bulk_create([_execution(call) for call in calls])
        return rows(TaskExecutionTry).bulk_create(
            TaskExecutionTry(
                task_execution=execution,
                run_after=call.run_after,
                dispatch_at=call.run_after or now + timedelta(seconds=grace_seconds),
            )
            for execution, call in zip(executions, calls, strict=True)
        )


def ref(task_try: TaskExecutionTry) -> TryRef:
    """What the outbox needs to know of a try."""
    execution = task_try.task_execution
    assert task_try.dispatch_at is not None, "a try that is running or terminal is not published"
    return TryRef(
        try_id=task_try.pk,
        execution_id=execution.pk,
        module_name=execution.task_path,
        func_name=execution.task_name,
        queue_name=execution.queue_name,
        dispatch_at=task_try.dispatch_at,
    )


def _execution(call: NewExecution) -> TaskExecution:
    return TaskExecution(
        task_path=call.module_name,
        task_name=call.func_name,
        task_args=call.args,
        task_kwargs=call.kwargs,
        queue_name=call.queue_name,
        priority=call.priority,
        options=dict(call.options) or None,
        chain=list(call.chain) or None,
        task_group_id=call.task_group_id,
        group_index=call.group_index,
        previous_id=call.origin.previous_id,
        previous_group_id=call.origin.previous_group_id,
        # Of a member that is one step long, `task_group` says as much.
        part_of_id=None if call.task_group_id == call.origin.part_of_id else call.origin.part_of_id,
    )

"""Rows as TaskResult of Django's framework."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.serializers.json import DjangoJSONEncoder

from ..core.retry import class_name, importable_name
from ..core.values import shown, shown_keywords
from ..exceptions import TaskCancelled, UnknownTaskError
from ..models import ExecutionOutcome, TaskExecution, TaskExecutionTry, TryState
from ..registry import load
from ..store.database import rows
from ..store.status import shown_result, state_of
from .framework import (
    DEFAULT_TASK_QUEUE_NAME,
    AnyResult,
    AnyTask,
    InvalidTask,
    InvalidTaskBackend,
    Task,
    TaskError,
    TaskResult,
    TaskResultDoesNotExist,
    TaskResultStatus,
)

IN_ROW = "django"
"""The name among a row's options under which the backend keeps its own alias and the queue as the task names it."""

STATUSES = {
    TryState.PENDING.value: TaskResultStatus.READY,
    TryState.RUNNING.value: TaskResultStatus.RUNNING,
    TryState.SUCCESS.value: TaskResultStatus.SUCCESSFUL,
    TryState.FAILED.value: TaskResultStatus.FAILED,
    ExecutionOutcome.CANCELLED.value: TaskResultStatus.FAILED,
}
"""Django's status for each state of an execution. A failed try that is tried again leaves its execution waiting."""


def result_of(result_id: str | UUID, alias: str) -> AnyResult:
    """The stored call with this uuid. Raises TaskResultDoesNotExist.

    `alias` is the backend that the result is said to be of, if the row names none.
    """
    try:
        uuid = result_id if isinstance(result_id, UUID) else UUID(str(result_id))
    except ValueError:
        raise TaskResultDoesNotExist(result_id) from None
    execution = rows(TaskExecution).filter(uuid=uuid).first()
    if execution is None:
        raise TaskResultDoesNotExist(result_id)
    return as_result(execution, alias)


def as_result(execution: TaskExecution, alias: str, tries: Sequence[TaskExecutionTry] | None = None) -> AnyResult:
    """A loaded row as TaskResult. Raises TaskResultDoesNotExist if its task is no longer there.

    `tries` are its tries in their order, if the caller has them; else they are read.
    """
    if tries is None:
        found = rows(TaskExecutionTry).filter(task_execution=execution).order_by("try_number")
        tries = list(found.select_related("result"))
    begun = [task_try for task_try in tries if task_try.started_at is not None]
    status = STATUSES[state_of(execution, tries[::-1])] if tries else TaskResultStatus.READY
    is_finished = status in {TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED}
    result = TaskResult(
        task=_task(execution, tries, alias),
        id=str(execution.uuid),
        status=status,
        enqueued_at=execution.created_at,
        started_at=begun[0].started_at if begun else None,
        last_attempted_at=begun[-1].started_at if begun else None,
        finished_at=_finished_at(execution, tries) if is_finished else None,
        args=_plain(shown(execution.task_args)),
        kwargs=_plain(shown_keywords(execution.task_kwargs)),
        backend=_stored(execution, "backend") or alias,
        errors=_errors(execution, tries),
        worker_ids=[task_try.worker_id or "" for task_try in begun],
    )
    if status == TaskResultStatus.SUCCESSFUL:
        [*_, succeeded] = (task_try for task_try in tries if task_try.is_success)
        object.__setattr__(result, "_return_value", _plain(shown_result(succeeded)))
    return result


def _task(execution: TaskExecution, tries: Sequence[TaskExecutionTry], alias: str) -> AnyTask:
    try:
        spec = load(execution.task_path, execution.task_name)
    except UnknownTaskError as error:
        raise TaskResultDoesNotExist(f"{execution.uuid} is of a task that is gone. {error}") from error
    # Django 6.0 gives these fields no defaults.
    plain: dict[str, Any] = {"priority": 0, "backend": alias, "queue_name": DEFAULT_TASK_QUEUE_NAME, "run_after": None}
    declared: AnyTask = getattr(spec, "declared", None) or Task(func=spec.function, **plain)
    changes: dict[str, Any] = {"priority": execution.priority, "backend": _stored(execution, "backend") or alias}
    changes["queue_name"] = _stored(execution, "queue_name") or execution.queue_name or declared.queue_name
    if tries and tries[0].run_after is not None:
        changes["run_after"] = tries[0].run_after
    try:
        return declared.using(**changes)
    except (InvalidTask, InvalidTaskBackend):  # TASKS has changed since
        return declared


def _finished_at(execution: TaskExecution, tries: Sequence[TaskExecutionTry]) -> datetime | None:
    """Rows of django-i3tasks have no time of their own."""
    return execution.finished_at or max((each.finished_at for each in tries if each.finished_at), default=None)


def _errors(execution: TaskExecution, tries: Sequence[TaskExecutionTry]) -> list[TaskError]:
    """An error for each failed try, and one that says so if the call was cancelled."""
    failed = [task_try for task_try in tries if TryState.of(task_try) is TryState.FAILED]
    errors = [
        TaskError(
            exception_class_path=importable_name(task_try.error_class or "Exception"),
            traceback=task_try.error_traceback or str(shown_result(task_try) or ""),
        )
        for task_try in failed
    ]
    cancelled = class_name(TaskCancelled)
    is_cancelled = execution.outcome == ExecutionOutcome.CANCELLED
    if is_cancelled and not any(error.exception_class_path == cancelled for error in errors):
        errors.append(TaskError(exception_class_path=cancelled, traceback=f"{cancelled}: {TaskCancelled()}\n"))
    return errors


def _plain(value: Any) -> Any:
    """JSON, also of values that Django's tasks can't have: the row may be of a call that i3tasks made itself."""
    return json.loads(json.dumps(value, cls=DjangoJSONEncoder))


def _stored(execution: TaskExecution, name: str) -> str | None:
    """The fields that Django's task had when it was enqueued; None for a call that was made otherwise."""
    options = execution.options if isinstance(execution.options, dict) else {}
    django = options.get(IN_ROW)
    value = django.get(name) if isinstance(django, dict) else None
    return value if isinstance(value, str) else None

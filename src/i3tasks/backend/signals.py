"""Signals of Django's tasks framework for its tasks, made from those of i3tasks. The backend sends `task_enqueued`."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from .. import signals
from .framework import (
    AnyResult,
    AnyTask,
    Task,
    TaskResultStatus,
    task_backends,
    task_finished,
    task_started,
)
from .results import result_of


def connect() -> None:
    """Send Django's signals from now on."""
    signals.task_started.connect(_send_started)
    signals.task_finished.connect(_send_finished)


def _send_started(sender: Any, execution_uuid: UUID, **facts: Any) -> None:
    if isinstance(sender, Task):
        result = _result(sender, execution_uuid)
        if result.status != TaskResultStatus.RUNNING:  # the body was quicker than its signal
            for name, value in {"status": TaskResultStatus.RUNNING, "finished_at": None, "_return_value": None}.items():
                object.__setattr__(result, name, value)
        task_started.send_robust(type(task_backends[result.backend]), task_result=result)


def _send_finished(sender: Any, execution_uuid: UUID, exception: BaseException | None, **facts: Any) -> None:
    if not isinstance(sender, Task):
        return
    result = _result(sender, execution_uuid)
    try:
        if exception is not None:
            raise exception
    except BaseException:  # receivers look for it by sys.exc_info()
        task_finished.send_robust(type(task_backends[result.backend]), task_result=result)
    else:
        task_finished.send_robust(type(task_backends[result.backend]), task_result=result)


def _result(task: AnyTask, execution_uuid: UUID) -> AnyResult:
    return result_of(execution_uuid, task.backend)

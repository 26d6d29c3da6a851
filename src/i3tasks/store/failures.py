"""The fields of events about a try's row, and the events of a failed try, by its body or by the loss of its worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..conf import queue_or_default
from ..core.deciding import GiveUp, RetryIn
from ..core.outcome import Failure
from ..exceptions import TaskCancelled
from ..models import TaskExecution, TaskExecutionTry
from ..telemetry import emit

if TYPE_CHECKING:
    from .requests import Settled


def report_failure(
    facts: Mapping[str, Any],
    outcome: Failure,
    settled: Settled,
    error: BaseException | None,
    *,
    conceals: bool = False,
) -> None:
    """Emit the failure: an error with its traceback if it is the last, a warning if another try follows.

    `facts` are its times, and, outside of the run itself, name the execution and the try. `conceals`: the error itself
    may quote a sensitive argument, so that only what is recorded of it is told.
    """
    facts = {**facts, "error_class": outcome.error.error_class, "error": outcome.error.message}
    if error is not None and not conceals:
        facts["exc_info"] = error
    if conceals:
        facts["stack_trace"] = outcome.error.traceback
    if settled.is_cancelled or isinstance(error, TaskCancelled):
        emit("execution_cancelled", **facts)
    elif isinstance(outcome.then, GiveUp):
        emit("execution_failed", **facts)
    else:
        emit("try_failed", **facts, **_next(outcome.then, settled))


def facts_of(task_try: TaskExecutionTry, execution: TaskExecution) -> dict[str, Any]:
    """Return what names the try. A try that no worker has had has no `worker`."""
    from .requests import scheduled_by

    return {
        "execution_id": execution.pk,
        "execution_uuid": execution.uuid,
        "try_id": task_try.pk,
        "task": f"{execution.task_path}.{execution.task_name}",
        "queue": queue_or_default(execution.queue_name),
        "try_number": task_try.try_number,
        **({} if task_try.worker_id is None else {"worker": task_try.worker_id}),
        **scheduled_by(execution.options),
    }


def _next(then: RetryIn, settled: Settled) -> dict[str, Any]:
    """Return the facts about the next try. There are none if a worker of django-i3tasks has written it already."""
    if settled.next_try is None or settled.at is None:
        return {}
    return {"next_try": settled.next_try.try_number, "next_try_at": settled.at + then.delay}

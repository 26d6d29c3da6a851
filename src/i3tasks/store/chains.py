"""Adding a step to a chain that may be waiting, running, over, or ending at this very instant."""

from __future__ import annotations

from ..clock import SYSTEM_CLOCK
from ..exceptions import I3TasksError
from ..models import TaskExecution, TaskExecutionResult, TaskExecutionTry
from ..steps import Step, wants_result
from .database import atomic, locked, rows
from .enqueue import Origin
from .workflows import Plan


def append_step(execution_id: int, step: Step) -> list[TaskExecutionTry]:
    """Add `step` to the end of the chain that begins with this execution.

    The row's lock decides between the two cases: an execution that has not ended keeps the step for later; one that
    has succeeded is followed by it now, and the new try is returned. After a failure the step is kept, and never runs.
    """
    with atomic():
        last = _last_of_chain(execution_id)
        if not _has_succeeded(last):
            last.chain = [*(last.chain or []), step]
            last.save(update_fields=["chain", "updated_at"])
            return []
        plan = Plan(SYSTEM_CLOCK.now())
        result = _result(last) if wants_result(step) else None
        plan.add([step], cause=last.pk, result=result, origin=Origin(previous_id=last.pk))
        return plan.write()


def _last_of_chain(execution_id: int) -> TaskExecution:
    """The chain's execution that has no next one yet, locked."""
    execution: TaskExecution = locked(rows(TaskExecution).filter(pk=execution_id), wait=True).get()
    while (following := rows(TaskExecution).filter(previous=execution.pk).first()) is not None:
        execution = locked(rows(TaskExecution).filter(pk=following.pk), wait=True).get()
    if _has_succeeded(execution) and execution.chain:
        raise I3TasksError(
            "The chain has come to a group, which another step can't be added behind. Write the whole workflow at "
            "once: chain(a.s(), group(...), b.s()).delay()."
        )
    return execution


def _has_succeeded(execution: TaskExecution) -> bool:
    """Also for rows older than the column `outcome`."""
    if execution.outcome is not None:
        return execution.outcome == TaskExecution.Outcome.SUCCESS
    return rows(TaskExecutionTry).filter(task_execution=execution.pk, is_success=True).exists()


def _result(execution: TaskExecution) -> object:
    results = rows(TaskExecutionResult).filter(
        task_execution_try__task_execution=execution.pk, task_execution_try__is_success=True
    )
    return results.values_list("result", flat=True).first()

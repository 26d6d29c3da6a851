"""Calling off executions, and putting deferred ones off."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ..exceptions import TaskCancelled
from ..models import TaskExecution, TaskExecutionTry
from ..outcome import ErrorRecord, Failure
from ..retry import GiveUp
from .database import atomic, database_time, locked, rows, with_database_time
from .settle import Ending, apply


def cancel(execution_ids: Sequence[int]) -> list[TaskExecutionTry]:
    """Ask for these executions to end: what waits never runs; what runs is told with its next heartbeat.

    Finished ones are left as they are. Gives the tries of what follows a cancellation (a group's failure callback).
    """
    with atomic():
        tries = rows(TaskExecutionTry).filter(task_execution__in=execution_ids, is_completed=False)
        open_tries = list(locked(with_database_time(tries), wait=True))
        unfinished = rows(TaskExecution).filter(
            pk__in={task_try.task_execution_id for task_try in open_tries}, finished_at__isnull=True
        )
        executions = {row.pk: row for row in locked(unfinished, wait=True)}
        for execution in executions.values():
            execution.cancel_requested_at = execution.cancel_requested_at or database_time(open_tries[0])
            execution.save(update_fields=["cancel_requested_at", "updated_at"])
        waiting = [
            Ending(task_try, executions[task_try.task_execution_id], _CANCELLED, database_time(task_try))
            for task_try in open_tries
            if task_try.claim_token is None and task_try.task_execution_id in executions
        ]
        due = apply(waiting)
        ids = [ref.try_id for refs in due.values() for ref in refs]
        return list(rows(TaskExecutionTry).filter(pk__in=ids).select_related("task_execution"))


def reschedule(execution_id: int, run_after: datetime) -> bool:
    """Move a try that has not started to another instant. False: it has started, or is over."""
    with atomic():
        waiting = rows(TaskExecutionTry).filter(
            task_execution=execution_id, is_completed=False, claim_token__isnull=True
        )
        return bool(waiting.update(run_after=run_after, dispatch_at=run_after))


def descendants(execution_id: int) -> list[int]:
    """The execution and the steps of its chain that have been reached so far."""
    ids = [execution_id]
    while (following := rows(TaskExecution).filter(previous=ids[-1]).values_list("pk", flat=True).first()) is not None:
        ids.append(following)
    return ids


_CANCELLED = Failure(ErrorRecord.of(TaskCancelled()), GiveUp(exhausted=False))

"""Calling off executions, and putting deferred ones off."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime

from django.db.models import Q

from ..models import TaskExecution, TaskExecutionTry, TaskGroup
from .database import atomic, database_time, locked, rows, with_database_time
from .settle import CANCELLED, Ending, apply


def cancel(execution_ids: Collection[int]) -> list[TaskExecutionTry]:
    """Ask for these executions to end: what waits never runs; what runs is told with its next heartbeat.

    Finished ones are left as they are. Gives the tries of what follows a cancellation (a group's failure callback).
    """
    return _cancel(lambda: execution_ids)


def cancel_workflow(*, execution_ids: Collection[int] = (), group_ids: Collection[int] = ()) -> list[TaskExecutionTry]:
    """`cancel` what is unfinished of these executions and groups, of their members, and of what followed them."""
    return _cancel(lambda: _reached_from(execution_ids, group_ids))


def _cancel(targets: Callable[[], Collection[int]]) -> list[TaskExecutionTry]:
    """`targets` is asked again until it has nothing new: next steps may be written before we have the locks."""
    with atomic():
        waiting: list[Ending] = []
        known: Collection[int] = ()
        while (endings := _request(found := targets())) is not None or found != known:
            waiting += [ending for ending in endings or () if ending.task_try.claim_token is None]
            known = found
        due = apply(waiting)
        ids = [ref.try_id for refs in due.values() for ref in refs]
        return list(rows(TaskExecutionTry).filter(pk__in=ids).select_related("task_execution"))


def _request(execution_ids: Collection[int]) -> list[Ending] | None:
    """Note the request in those executions that have none. Gives how their open tries end if nobody runs them.

    None: there are no such tries. That we got no lock does not say so: the holder may have written the next ones.
    """
    open_executions = rows(TaskExecution).filter(
        pk__in=execution_ids, finished_at__isnull=True, cancel_requested_at__isnull=True
    )
    tries = rows(TaskExecutionTry).filter(task_execution__in=open_executions, is_completed=False)
    if not tries.exists():
        return None
    open_tries = list(locked(with_database_time(tries), wait=True))
    if not open_tries:
        return []
    at = database_time(open_tries[0])
    ids = {task_try.task_execution_id for task_try in open_tries}
    executions = {row.pk: row for row in locked(open_executions.filter(pk__in=ids), wait=True)}
    rows(TaskExecution).filter(pk__in=executions).update(cancel_requested_at=at, updated_at=at)
    for execution in executions.values():
        execution.cancel_requested_at = at
    return [
        Ending(task_try, executions[task_try.task_execution_id], CANCELLED, at)
        for task_try in open_tries
        if task_try.task_execution_id in executions
    ]


def _reached_from(execution_ids: Iterable[int], group_ids: Iterable[int]) -> set[int]:
    """The executions that these have led to so far, and the given ones."""
    executions, groups = set(execution_ids), set(group_ids)
    fresh_executions, fresh_groups = executions, groups
    while fresh_executions or fresh_groups:
        within = Q(task_group__in=fresh_groups) | Q(part_of__in=fresh_groups) | Q(previous_group__in=fresh_groups)
        following = rows(TaskExecution).filter(Q(previous__in=fresh_executions) | within)
        next_groups = rows(TaskGroup).filter(Q(previous__in=fresh_executions) | Q(part_of__in=fresh_groups))
        fresh_executions = set(following.values_list("pk", flat=True)) - executions
        fresh_groups = set(next_groups.values_list("pk", flat=True)) - groups
        executions |= fresh_executions
        groups |= fresh_groups
    return executions


def reschedule(execution_id: int, run_after: datetime) -> bool:
    """Move a try that has not started to another instant. False: it has started, or is over."""
    with atomic():
        waiting = rows(TaskExecutionTry).filter(
            task_execution=execution_id, is_completed=False, claim_token__isnull=True
        )
        # Its message, if one is under way, comes too early and is gone then: to the dispatcher the try is new.
        return bool(waiting.update(run_after=run_after, dispatch_at=run_after, publish_count=0))

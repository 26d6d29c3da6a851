"""Cancelling executions, rescheduling them, and retrying those that have failed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import Q

from ..core.steps import groups_waited_for
from ..models import ExecutionOutcome, TaskExecution, TaskExecutionTry, TaskGroup, TaskKey
from ..registry import find
from .database import DATABASE_TIME, Instant, Rows, alias, atomic, database_time, locked, rows, with_database_time
from .enqueue import publishing, to_come
from .failures import facts_of, report_failure
from .keys import Key, argument_key, insert_once
from .lock_timeout import LONGEST_LOCK, attempting, short_locks
from .locks import GoneOn, lock_groups, locked_together
from .requests import Settled
from .settle import CANCELLED, TryEnding, apply, blocked_by_groups
from .slices import has_slices, open_all_slices
from .states import UNCLAIMED_TRY
from .workflows import discount


@attempting
def cancel(execution_ids: Collection[int], *, now: Instant = DATABASE_TIME) -> list[TaskExecutionTry]:
    """Ask for these executions to end: waiting ones never run; running ones are told with their next heartbeat.

    Finished ones are left as they are. Gives the tries of what follows a cancellation (a group's failure callback).
    """
    return _cancel(lambda: (execution_ids, ()), now)


@attempting
def cancel_workflow(
    *, execution_ids: Collection[int] = (), group_ids: Collection[int] = (), now: Instant = DATABASE_TIME
) -> list[TaskExecutionTry]:
    """`cancel` what is unfinished of these executions and groups, of their members, and of what followed them."""
    return _cancel(lambda: _reached_from(execution_ids, group_ids), now)


Targets = tuple[Collection[int], Collection[int]]
"""Executions, and groups all of whose members are to be written first."""


def _cancel(find: Callable[[], Targets], now: Instant) -> list[TaskExecutionTry]:
    """Cancel what `find` gives, once it gives the same before and after all of it is locked."""
    return locked_together(partial(_attempt, find, now))


def _attempt(find: Callable[[], Targets], now: Instant) -> list[TaskExecutionTry]:
    targets = find()
    while open_all_slices(targets[1], now=now):
        targets = find()
    waiting = _lock_waiting(targets[0], now)
    requested = _request(targets[0], now)
    if find() != targets or has_slices(targets[1]) or _waiting_tries(requested) - waiting.keys():
        raise GoneOn  # there is a new step, or a worker has handed a try back
    endings = [
        TryEnding(task_try, requested[task_try.task_execution_id], CANCELLED, database_time(task_try))
        for task_try in waiting.values()
        if task_try.task_execution_id in requested
    ]
    blocked_by_groups(endings, wait=True)
    due, _ = apply(endings)
    _report_on_commit(endings)
    ids = [ref.try_id for refs in due.values() for ref in refs]
    return list(rows(TaskExecutionTry).filter(pk__in=ids).select_related("task_execution"))


def _report_on_commit(endings: Sequence[TryEnding]) -> None:
    def report() -> None:  # a function and not a partial: Django names it when it fails
        for ending in endings:
            settled = Settled(at=ending.at, is_cancelled=True)
            report_failure(facts_of(ending.task_try, ending.execution), CANCELLED, settled, None)

    if endings:
        transaction.on_commit(report, using=alias(), robust=True)


def _unrequested(execution_ids: Collection[int]) -> Rows:
    return rows(TaskExecution).filter(pk__in=execution_ids, finished_at__isnull=True, cancel_requested_at__isnull=True)


def _waiting(executions: Any) -> Rows:
    """Their tries that no worker runs.

    Running tries are not locked, because that would hold up their heartbeats: the request tells their workers.
    """
    tries = rows(TaskExecutionTry).filter(task_execution__in=executions)
    return tries.filter(UNCLAIMED_TRY)


def _waiting_tries(executions: Iterable[int]) -> set[int]:
    return set(_waiting(list(executions)).values_list("pk", flat=True))


def _lock_waiting(execution_ids: Collection[int], now: Instant) -> dict[int, Any]:
    tries = locked(with_database_time(_waiting(_unrequested(execution_ids)), now), wait=True)
    return {task_try.pk: task_try for task_try in tries}


def _request(execution_ids: Collection[int], now: Instant) -> dict[int, TaskExecution]:
    """Note the request in those executions that have none. Gives them."""
    unfinished = rows(TaskExecutionTry).filter(is_completed=False).values("task_execution")
    asked = _unrequested(execution_ids).filter(pk__in=unfinished)
    fresh: list[Any] = list(locked(with_database_time(asked, now), wait=True))
    if fresh:
        at = database_time(fresh[0])
        rows(TaskExecution).filter(pk__in=[row.pk for row in fresh]).update(cancel_requested_at=at, updated_at=at)
        for execution in fresh:
            execution.cancel_requested_at = at
    return {execution.pk: execution for execution in fresh}


def _reached_from(execution_ids: Iterable[int], group_ids: Iterable[int]) -> tuple[set[int], set[int]]:
    """The executions and groups that these have led to so far, and the given ones."""
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
    return executions, groups


@attempting
def reschedule(execution_id: int, run_after: datetime, *, now: datetime) -> bool:
    """Move a try that has not started to another instant. False: it has started, or is over."""
    with atomic():
        waiting = rows(TaskExecutionTry).filter(UNCLAIMED_TRY, task_execution=execution_id)
        # Its message, if one is under way, comes too early and is gone then: to the dispatcher the try is new.
        return bool(waiting.update(run_after=to_come(run_after, now), dispatch_at=run_after, publish_count=0))


UNIQUE_IS_UNFINISHED = (
    "It is not tried again: its task is unique, and another call with the same arguments is unfinished. Wait until "
    "that one has finished, or cancel it, and retry then."
)


@dataclass(frozen=True, slots=True)
class Retried:
    """The result of a retry: the new tries, and the executions that get none."""

    tries: list[TaskExecutionTry]
    taken: set[int]
    """Executions of a `unique` task of which another call with the same arguments is unfinished."""


@attempting
def retry_failed(execution_ids: Sequence[int], *, now: datetime) -> Retried:
    """Write one more try for each of these executions that has failed or was cancelled; the others are left alone.

    It is one try, past `max_retries`. If it succeeds the execution's chain goes on. A group that the failure has
    failed stays failed; one that waits for all its members waits for this one again. A call of a `unique` task takes
    its key again, and is left alone while another unfinished call has it.
    """
    ended = (ExecutionOutcome.FAILED, ExecutionOutcome.CANCELLED)
    with atomic():
        found = list(locked(rows(TaskExecution).filter(pk__in=execution_ids, outcome__in=ended), wait=True))
        lock_groups({pk for row in found for pk in (row.task_group_id, *groups_waited_for(row.chain)) if pk}, wait=True)
        keys = _keys_of(found)
        tries = [*_write_retries([row for row in found if row.pk not in keys], now), *_write_keyed(found, keys, now)]
        discount([task_try.task_execution for task_try in tries], now)
        return Retried(tries, keys.keys() - {task_try.task_execution_id for task_try in tries})


def _keys_of(executions: Iterable[TaskExecution]) -> dict[int, Key]:
    """The keys that calls of `unique` tasks share with others. A call with an `idempotency_key` has no such key."""
    keys: dict[int, Key] = {}
    for row in executions:
        spec = find(row.task_path, row.task_name)
        if spec is not None and spec.options.unique:
            with suppress(TypeError):  # the arguments fit the function no more: the body can't run
                keys[row.pk] = argument_key(spec, row.task_args, row.task_kwargs)
    of_callers = rows(TaskKey).filter(task_execution__in=keys, expires_at__isnull=False)
    for pk in of_callers.values_list("task_execution_id", flat=True):
        del keys[pk]
    return keys


def _write_keyed(executions: Iterable[TaskExecution], keys: Mapping[int, Key], now: datetime) -> list[TaskExecutionTry]:
    """Write the retries whose keys are free. The keys are locked in their order, after all other rows."""
    keyed = sorted((row for row in executions if row.pk in keys), key=lambda row: (keys[row.pk].text, row.pk))
    if not keyed:
        return []
    with short_locks(LONGEST_LOCK):
        answers = [insert_once(keys[row.pk], partial(_write_retry, row, now), now=now) for row in keyed]
    return [task_try for task_try, is_new in answers if is_new]


def _write_retry(execution: TaskExecution, now: datetime) -> TaskExecutionTry:
    return _write_retries([execution], now)[0]


def _write_retries(executions: Sequence[TaskExecution], now: datetime) -> list[TaskExecutionTry]:
    rows(TaskExecution).filter(pk__in=[row.pk for row in executions]).update(
        outcome=None, finished_at=None, cancel_requested_at=None, updated_at=now
    )
    return rows(TaskExecutionTry).bulk_create(
        TaskExecutionTry(
            task_execution=row,
            try_number=_next_number(row),
            **publishing(row.task_path, row.task_name, row.queue_name, now)._asdict(),
            queue_name=row.queue_name,
            priority=row.priority,
        )
        for row in executions
    )


def _next_number(execution: TaskExecution) -> int:
    last = rows(TaskExecutionTry).filter(task_execution=execution.pk).order_by("-try_number").first()
    return 1 if last is None else last.try_number + 1

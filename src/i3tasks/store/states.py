"""The states of executions and tries: the condition of each for queries, and the state of a loaded row.

An execution is in exactly one of seven states. LOST is a part of two of them: an execution that failed, or seems to be
running, because its worker died. Rows of django-i3tasks have no `outcome`: their tries tell.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from django.db.models import BooleanField, Case, Exists, OuterRef, Prefetch, Q, Subquery, TextChoices, Value, When
from django.db.models.lookups import Exact

from ..core.retry import class_name
from ..exceptions import TaskCancelled, WorkerLost
from ..models import ExecutionOutcome, TaskExecution, TaskExecutionTry, TryState
from .database import rows

SUCCEEDED = Q(outcome=ExecutionOutcome.SUCCESS)
CANCELLED = Q(outcome=ExecutionOutcome.CANCELLED)
FAILED = Q(outcome=ExecutionOutcome.FAILED)
"""Executions that failed for good. Those of django-i3tasks have no outcome."""
NOT_MARKED = Q(outcome__isnull=True)
"""Executions that have not ended; and all of django-i3tasks, of which only the tries tell."""
FAILED_TRY = Q(is_completed=True, is_success=False)
"""Tries that failed, by the condition of their index. Those of django-i3tasks are not completed: see `TryState`."""
OPEN_TRY = Q(is_completed=False, finished_at__isnull=True)
"""Tries that wait or run. A try of django-i3tasks that failed has an end, but is not completed."""
UNCLAIMED_TRY = Q(is_completed=False, claim_token__isnull=True)
"""Tries that may still be claimed, moved or called off: no worker has them, and they have not ended."""
_TELLING = ("-is_success", "-try_number")
LOST_CLASS = class_name(WorkerLost)
CANCELLED_CLASS = class_name(TaskCancelled)


def has_success() -> Exists:
    """Executions with a try that succeeded. Of those that a worker of django-i3tasks ran, only the tries tell."""
    return Exists(rows(TaskExecutionTry).filter(task_execution=OuterRef("pk"), is_success=True))


class State(TextChoices):
    """The states by which executions are listed and chosen."""

    WAITING = "waiting"  # due, and no worker has it yet
    RUNNING = "running"
    RETRYING = "retrying"  # a try has ended, and the next one waits
    DEFERRED = "deferred"  # its time is still to come
    FAILED = "failed"  # for good
    CANCELLED = "cancelled"
    LOST = "lost"  # failed for good with its worker, or its lease has run out
    SUCCEEDED = "succeeded"

    def condition(self, now: datetime) -> Q:
        """The condition for queries of executions."""
        outcomes = {
            State.CANCELLED: Q(outcome=ExecutionOutcome.CANCELLED),
            State.FAILED: FAILED | _unmarked(TryState.FAILED.condition()),
            State.SUCCEEDED: Q(outcome=ExecutionOutcome.SUCCESS) | _unmarked(TryState.SUCCESS.condition()),
        }
        if self in outcomes:
            return outcomes[self]
        if self is State.LOST:
            overdue = TryState.RUNNING.condition() & Q(lease_until__lt=now)
            return FAILED & _telling(Q(error_class=LOST_CLASS)) | _unmarked(overdue)
        return _unmarked(tries_of(self, now))


UNFINISHED = (State.WAITING, State.RUNNING, State.RETRYING, State.DEFERRED)


def tries_of(state: State, now: datetime) -> Q:
    """The latest tries of executions in one of the UNFINISHED states."""
    pending = TryState.PENDING.condition()
    to_come = Q(run_after__gt=now)
    return {
        State.WAITING: pending & Q(try_number__lte=1) & ~to_come,
        State.DEFERRED: pending & Q(try_number__lte=1) & to_come,
        State.RETRYING: pending & Q(try_number__gt=1),
        State.RUNNING: TryState.RUNNING.condition(),
    }[state]


def state_of(execution: TaskExecution, latest: TaskExecutionTry | None, now: datetime) -> State | None:
    """The state of a loaded execution, LOST where that is so. None: it has no tries.

    `latest` is the try that `telling_try` loads: one that succeeded, or else the latest.
    """
    if execution.outcome == ExecutionOutcome.CANCELLED:
        return State.CANCELLED
    if latest is None:
        return {"success": State.SUCCEEDED, "failed": State.FAILED}.get(execution.outcome or "")
    if execution.outcome is None:
        return _of_try(latest, now)
    if execution.outcome == ExecutionOutcome.SUCCESS:
        return State.SUCCEEDED
    return State.LOST if latest.error_class == LOST_CLASS else State.FAILED


def _of_try(latest: TaskExecutionTry, now: datetime) -> State:
    state = TryState.of(latest)
    if state is TryState.PENDING:
        if latest.try_number > 1:
            return State.RETRYING
        return State.DEFERRED if latest.run_after is not None and latest.run_after > now else State.WAITING
    if state is TryState.RUNNING:
        return State.LOST if latest.lease_until is not None and latest.lease_until < now else State.RUNNING
    return State.SUCCEEDED if state is TryState.SUCCESS else State.FAILED


def called_off(failed: Collection[tuple[int, datetime, str | None]]) -> set[tuple[int, datetime]]:
    """Tries, by their executions and ends, that a cancellation ended, which is no failure.

    `failed` has the execution, the end and the error's class of each.
    """
    ids = {execution_id for execution_id, _, _ in failed}
    cancelled: Any = rows(TaskExecution).filter(CANCELLED, pk__in=ids).values_list("pk", "finished_at") if ids else ()
    return {(pk, at) for pk, at, error_class in failed if error_class == CANCELLED_CLASS}.union(cancelled)


def telling_try(to_attr: str = "latest") -> Prefetch[Any]:
    """Load with each execution a list of the one try that tells its state, or of none. Without its traceback."""
    tries = rows(TaskExecutionTry).defer("error_traceback").order_by(*_TELLING)[:1]
    return Prefetch("tries", tries, to_attr=to_attr)


def telling_of(tries: Sequence[TaskExecutionTry]) -> TaskExecutionTry | None:
    """The same one of all loaded tries of an execution."""
    return max(tries, key=lambda one: (one.is_success, one.try_number), default=None)


def _unmarked(condition: Q) -> Q:
    """Executions without an outcome whose telling try is so."""
    return NOT_MARKED & _telling(condition)


def _telling(condition: Q) -> Q:
    """Executions whose telling try is so. As a value, so that no database makes a list of all such tries for it."""
    tries = rows(TaskExecutionTry).filter(task_execution=OuterRef("pk")).order_by(*_TELLING)
    holds = Case(When(condition, then=Value(True)), default=Value(False), output_field=BooleanField())
    return Q(Exact(Subquery(tries.annotate(holds=holds).values("holds")[:1]), Value(True)))

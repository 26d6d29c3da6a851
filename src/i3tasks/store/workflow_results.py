"""The end of a chain or a group, for callers that wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Max, Q

from ..core.values import JSON
from ..models import ExecutionOutcome, TaskExecution, TaskExecutionTry, TaskGroup
from .appending import End, follower, goes_on, kept, number_of_hooks, read
from .database import rows
from .results import of_execution, of_group


@dataclass(frozen=True, slots=True)
class WorkflowEnding:
    """The end of a chain: the value of its last step, or the reason why there is none."""

    value: JSON = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The row that the chain has come to, and waits for."""

    row: End


def ending_of(start: End, *, first_only: bool = False) -> WorkflowEnding | UnderWay:
    """How the chain that begins with `start` ended; with `first_only`, how `start` itself did.

    The steps of a task's own `on_success` are not the chain's: they are not waited for. Raises ExecutionNotFound if
    there is no such row.
    """
    last = before = read(start)
    hooks = number_of_hooks(last)
    while not first_only and goes_on(last) and (following := follower(last)) is not None:
        last = following
        if hooks:
            hooks -= 1
        else:
            before = last
        hooks += number_of_hooks(last)
    is_last = first_only or len(kept(last)) <= hooks
    if _has_failed(last) and not (is_last and before is not last):
        return WorkflowEnding(failure=_failure_of(last))
    if is_last and _has_succeeded(before):
        return WorkflowEnding(of_group(before.pk) if isinstance(before, TaskGroup) else of_execution(before.pk))
    return UnderWay(last)


def waiting_for_a_worker(end: End, now: datetime) -> TaskExecution | None:
    """The execution itself, or one of the group, that is due and that nothing runs yet. None while a member runs."""
    own = Q(pk=end.pk) if isinstance(end, TaskExecution) else Q(task_group=end.pk) | Q(part_of=end.pk)
    unfinished = rows(TaskExecutionTry).filter(
        task_execution__in=rows(TaskExecution).filter(own, outcome__isnull=True).values("pk"), is_completed=False
    )
    if unfinished.filter(started_at__isnull=False).exists():
        return None
    due = unfinished.filter(Q(run_after__isnull=True) | Q(run_after__lte=now)).select_related("task_execution")
    first = due.order_by("pk").first()
    return None if first is None else first.task_execution


def is_part_of(end: End, execution_id: int) -> bool:
    """Whether the end can't come before this execution has ended: it is that one, or a group that it is a member of."""
    if isinstance(end, TaskExecution):
        return end.pk == execution_id
    return rows(TaskExecution).filter(Q(task_group=end.pk) | Q(part_of=end.pk), pk=execution_id).exists()


def newest_try_of(end: End) -> int | None:
    """The number of its newest try as this connection sees it, 0 for a group; None if it does not see the row."""
    if isinstance(end, TaskGroup):
        return 0 if rows(TaskGroup).filter(pk=end.pk).exists() else None
    newest: int | None = rows(TaskExecutionTry).filter(task_execution=end.pk).aggregate(at=Max("try_number"))["at"]
    return newest


def _has_succeeded(end: End) -> bool:
    """Also if what was to follow it was cancelled."""
    return (isinstance(end, TaskExecution) and end.outcome == ExecutionOutcome.SUCCESS) or goes_on(end)


def _has_failed(end: End) -> bool:
    if isinstance(end, TaskGroup):
        return end.status == TaskGroup.STATUS_FAILED
    if end.outcome == ExecutionOutcome.SUCCESS:
        return end.cancel_requested_at is not None and bool(end.chain)  # its next steps were cancelled
    return end.outcome is not None


def _failure_of(end: End) -> str:
    if isinstance(end, TaskGroup):
        return f"{end}: a member failed or was cancelled, or its deadline has passed"
    last = rows(TaskExecutionTry).filter(task_execution=end.pk).select_related("result").order_by("-try_number").first()
    text = getattr(getattr(last, "result", None), "result", "")
    return f"{end}: {'cancelled' if last is None else last.error_class}: {text}"

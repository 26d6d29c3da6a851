"""How a chain or a group ended, for callers that wait for it."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.values import JSON
from ..models import ExecutionOutcome, TaskExecution, TaskExecutionTry, TaskGroup
from .chains import End, _follower, _goes_on, _kept, _number_of_hooks, _read
from .database import rows
from .results import of_execution, of_group


@dataclass(frozen=True, slots=True)
class Ending:
    """What a chain came to: the value of its last step, or why there is none."""

    value: JSON = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The row that the chain has come to, and waits for."""

    row: End


def ending_of(start: End, *, first_only: bool = False) -> Ending | UnderWay:
    """How the chain that begins with `start` ended; with `first_only`, how `start` itself did.

    The steps of a task's own `on_success` are not the chain's: they are not waited for. Raises ExecutionNotFound if
    there is no such row.
    """
    last = before = _read(start)
    hooks = _number_of_hooks(last)
    while not first_only and _goes_on(last) and (following := _follower(last)) is not None:
        last = following
        if hooks:
            hooks -= 1
        else:
            before = last
        hooks += _number_of_hooks(last)
    is_last = first_only or len(_kept(last)) <= hooks
    if _has_failed(last) and not (is_last and before is not last):
        return Ending(failure=_failure_of(last))
    if is_last and _has_succeeded(before):
        return Ending(of_group(before.pk) if isinstance(before, TaskGroup) else of_execution(before.pk))
    return UnderWay(last)


def waits_for_a_worker(execution: TaskExecution) -> bool:
    """Whether nothing runs the execution yet, though it is due."""
    tries = rows(TaskExecutionTry).filter(task_execution=execution.pk)
    return tries.filter(started_at__isnull=True, is_completed=False, run_after__isnull=True).exists()


def _has_succeeded(end: End) -> bool:
    """Also if what was to follow it was cancelled."""
    return (isinstance(end, TaskExecution) and end.outcome == ExecutionOutcome.SUCCESS) or _goes_on(end)


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

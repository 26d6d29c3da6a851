"""Adding a step to a chain that may be waiting, running, over, or ending at this very instant."""

from __future__ import annotations

from ..clock import SYSTEM_CLOCK
from ..models import TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup
from ..steps import Step, wants_result
from .database import atomic, locked, rows
from .enqueue import Origin
from .workflows import Plan, append_to_callback, callback_steps, filled_start, own_steps, results_of

End = TaskExecution | TaskGroup


def append_step(start: End, step: Step) -> list[TaskExecutionTry]:
    """Add `step` to the end of the chain that begins with `start`.

    The row's lock decides between the two cases: an execution or a group that has not ended keeps the step for later;
    one that has succeeded is followed by it now, and the new try is returned. After a failure or a cancellation the
    step is kept, and never runs.
    """
    with atomic():
        last, before, hooks = _end_of_chain(start)
        if _goes_on(last):
            plan = Plan(SYSTEM_CLOCK.now())
            plan.add([step], cause=None, result=_result(before, step), origin=_origin(last))
            return plan.write()
        if before is not last and len(_kept(last)) == hooks:
            step = filled_start(step, _result(before, step))
        _keep(last, step)
        return []


def _end_of_chain(start: End) -> tuple[End, End, int]:
    """The last execution or group that the chain has come to, locked; the last one of the chain proper; and hooks.

    The two differ while steps of a task's own `on_success` run, or when they end the chain; `hooks` are those to come.
    """
    last = before = _locked(start)
    hooks = _number_of_hooks(last)
    while (following := _follower(last)) is not None:
        last = _locked(following)
        if hooks:
            hooks -= 1
        else:
            before = last
        hooks += _number_of_hooks(last)
    return last, before, hooks


def _locked(end: End) -> End:
    row: End = locked(rows(type(end)).filter(pk=end.pk), wait=True).get()
    return row


def _number_of_hooks(end: End) -> int:
    return len(own_steps(end)) if isinstance(end, TaskExecution) else 0


def _follower(end: End) -> End | None:
    if isinstance(end, TaskGroup):
        return rows(TaskExecution).filter(previous_group=end.pk).first()
    following = rows(TaskExecution).filter(previous=end.pk).first()
    return following or rows(TaskGroup).filter(previous=end.pk).first()


def _goes_on(end: End) -> bool:
    if isinstance(end, TaskGroup):
        return end.status == TaskGroup.STATUS_SUCCESS
    if end.outcome is not None:
        return end.outcome == TaskExecution.Outcome.SUCCESS and end.cancel_requested_at is None
    # A row older than the column `outcome`, or one that is unfinished.
    return rows(TaskExecutionTry).filter(task_execution=end.pk, is_success=True).exists()


def _kept(end: End) -> list[Step]:
    return callback_steps(end) if isinstance(end, TaskGroup) else end.chain or []


def _keep(end: End, step: Step) -> None:
    if isinstance(end, TaskGroup):
        append_to_callback(end, step)
    else:
        end.chain = [*_kept(end), step]
        end.save(update_fields=["chain", "updated_at"])


def _origin(end: End) -> Origin:
    return Origin(previous_group_id=end.pk) if isinstance(end, TaskGroup) else Origin(previous_id=end.pk)


def _result(end: End, step: Step) -> object:
    """What `step` asks for, if it does."""
    if not wants_result(step):
        return None
    if isinstance(end, TaskGroup):
        return results_of(end)
    results = rows(TaskExecutionResult).filter(
        task_execution_try__task_execution=end.pk, task_execution_try__is_success=True
    )
    return results.values_list("result", flat=True).first()

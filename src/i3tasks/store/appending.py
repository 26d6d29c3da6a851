"""Adding a step to a chain that may be waiting, running, finished, or finishing in another transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..core.steps import Step, groups_waited_for, wants_result
from ..exceptions import ExecutionNotFound
from ..models import ExecutionOutcome, TaskExecution, TaskExecutionTry, TaskGroup
from .database import locked, rows
from .enqueue import Origin
from .lock_timeout import attempting
from .locks import GoneOn, lock_groups, locked_together
from .results import of_execution, of_group
from .workflows import Plan, append_to_callback, callback_steps, filled_start, own_steps

End = TaskExecution | TaskGroup


@attempting
def append_step(start: End, step: Step, *, now: datetime) -> Sequence[TaskExecutionTry]:
    """Add `step` to the end of the chain that begins with `start`.

    The lock of the chain's last row decides between two cases. A row that has not ended keeps the step for later. A row
    that has succeeded is followed by the step now, and the new try is returned. After a failure or a cancellation
    the step is kept, and runs only if a retry succeeds; a group that waits for the step counts it as failed.

    In each case, the `chain` of every row of the chain so far names the step, too.
    """
    return locked_together(lambda: _append(_locked(start), step, now))


def _append(chain: _Chain, step: Step, now: datetime) -> Sequence[TaskExecutionTry]:
    last = chain.last
    plan = Plan(now)
    if goes_on(last):
        plan.add([step], cause=None, result=_result(chain.before, step), origin=_origin(last))
    elif _has_ended(last):
        lock_groups(groups_waited_for([step]), wait=True)
        plan.never_run([step])
    for end in chain.ends[:-1]:
        _keep(end, step, now)
    if chain.before is not last and len(kept(last)) == chain.hooks:
        step = filled_start(step, _result(chain.before, step))
    _keep(last, step, now)
    return plan.write()


@dataclass(slots=True)
class _Chain:
    """A chain as far as it has come: its rows from the start on.

    `before` is the last row that is a step of the chain itself, not a hook: a step of a task's own `on_success`.
    `hooks` is the number of hooks that have not run yet. `before` is not the last row while hooks run, or when hooks
    end the chain.
    """

    ends: list[End]
    before: End
    hooks: int

    @property
    def last(self) -> End:
        return self.ends[-1]

    def go_to(self, following: End) -> None:
        self.ends.append(following)
        if self.hooks:
            self.hooks -= 1
        else:
            self.before = following
        self.hooks += number_of_hooks(following)


def _locked(start: End) -> _Chain:
    """The chain that begins with `start`, all of its rows locked. Raises GoneOn if it has got another one meanwhile."""
    before = _walked(start).ends
    for model in (TaskExecution, TaskGroup):
        list(locked(rows(model).filter(pk__in=[end.pk for end in before if isinstance(end, model)]), wait=True))
    chain = _walked(start)
    if len(chain.ends) != len(before):
        raise GoneOn
    return chain


def _walked(start: End) -> _Chain:
    first = read(start)
    chain = _Chain([first], first, number_of_hooks(first))
    while (following := follower(chain.last)) is not None:
        chain.go_to(following)
    return chain


def read(end: End) -> End:
    """The row as it is now. Raises ExecutionNotFound."""
    row: Any = rows(type(end)).filter(pk=end.pk).first()
    if row is None:
        raise ExecutionNotFound(
            f"There is no {end}: its transaction was rolled back, or retention has deleted it. Enqueue it anew."
        )
    found: End = row
    return found


def number_of_hooks(end: End) -> int:
    return len(own_steps(end)) if isinstance(end, TaskExecution) else 0


def follower(end: End) -> End | None:
    if isinstance(end, TaskGroup):
        return rows(TaskExecution).filter(previous_group=end.pk).first()
    following = rows(TaskExecution).filter(previous=end.pk).first()
    return following or rows(TaskGroup).filter(previous=end.pk).first()


def goes_on(end: End) -> bool:
    if isinstance(end, TaskGroup):
        return end.status == TaskGroup.STATUS_SUCCESS
    if end.outcome is not None:
        return end.outcome == ExecutionOutcome.SUCCESS and end.cancel_requested_at is None
    # The row is unfinished, or older than the column `outcome`.
    return rows(TaskExecutionTry).filter(task_execution=end.pk, is_success=True).exists()


def _has_ended(end: End) -> bool:
    return end.status != TaskGroup.STATUS_PENDING if isinstance(end, TaskGroup) else end.outcome is not None


def kept(end: End) -> list[Step]:
    return callback_steps(end) if isinstance(end, TaskGroup) else end.chain or []


def _keep(end: End, step: Step, now: datetime) -> None:
    if isinstance(end, TaskGroup):
        append_to_callback(end, step, now)
    else:
        end.chain = [*kept(end), step]
        end.save(update_fields=["chain", "updated_at"])


def _origin(end: End) -> Origin:
    return Origin(previous_group_id=end.pk) if isinstance(end, TaskGroup) else Origin(previous_id=end.pk)


def _result(end: End, step: Step) -> object:
    """The result of `end`, if `step` asks for it; else None."""
    if not wants_result(step):
        return None
    return of_group(end.pk) if isinstance(end, TaskGroup) else of_execution(end.pk)

"""What follows from an execution's end: the next step of its chain, its group's count, callbacks of failure.

Everything here runs inside the transaction that settles the try, so each follow-up happens exactly once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F

from ..clock import SYSTEM_CLOCK
from ..conf import get_config
from ..models import TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup
from ..registry import find
from ..steps import RESULT_JSON, Step, filled, groups_waited_for, wants_result
from .database import rows
from .enqueue import FIRST, NewExecution, Origin, from_step, insert

COLLECT: Step = {"module_name": "i3tasks.tasks", "func_name": "collect", "args": [RESULT_JSON], "kwargs": {}}
"""Stands in where a group has nothing of its own to call but something must follow it."""


ABOUT = "about"
"""Key of a group's `on_failure`: the execution whose failure it will be told."""


@dataclass(frozen=True, slots=True)
class Finished:
    """An execution that has ended in this transaction."""

    execution: TaskExecution
    at: datetime
    succeeded: bool
    result: Any = None

    @property
    def goes_on(self) -> bool:
        """Whether its chain does: one that succeeded in spite of being cancelled is the last of its chain."""
        return self.succeeded and self.execution.cancel_requested_at is None


@dataclass(slots=True)
class Tally:
    """Members of a group that have ended: how many well, and the failed executions of the others, where known."""

    succeeded: int = 0
    failed: list[int | None] = field(default_factory=list)


@dataclass(slots=True)
class Plan:
    """Executions to be written together. `causes` names, for each, the execution whose end led to it, if it was one.

    `tallies` are what groups have yet to be told.
    """

    at: datetime
    calls: list[NewExecution] = field(default_factory=list)
    causes: list[int | None] = field(default_factory=list)
    groups: list[TaskGroup] = field(default_factory=list)
    tallies: defaultdict[int, Tally] = field(default_factory=lambda: defaultdict(Tally))

    def add(self, steps: Sequence[Step], *, cause: int | None, result: Any = None, origin: Origin = FIRST) -> None:
        """Plan the first of `steps`; the others follow it. A step that is a group brings all its members."""
        if not steps:
            return
        first, *rest = steps
        if "group" in first:
            self._add_group(first["group"], rest, cause, result, origin)
        else:
            self.calls.append(from_step(filled_start(first, result), rest, origin))
            self.causes.append(cause)

    def write(self) -> list[TaskExecutionTry]:
        """Tell the groups, and insert what was planned: the tries, in the order of `causes`."""
        self._tell_groups()
        grace_seconds = get_config().settings.publish_grace_seconds
        return insert(self.calls, now=self.at, grace_seconds=grace_seconds) if self.calls else []

    def _add_group(self, group: Step, rest: Sequence[Step], cause: int | None, result: Any, origin: Origin) -> None:
        row = create_group(group, rest, at=self.at, origin=origin)
        self.groups.append(row)
        for index, member in enumerate(group["members"]):
            first, *others = _ending_in_group(member, row.pk, index)
            self.add([filled_start(first, result), *others], cause=cause, origin=Origin(part_of_id=row.pk))
        if not group["members"]:
            self.fire(row, cause)

    def fire(self, group: TaskGroup, cause: int | None) -> None:
        """The group has succeeded: plan its callback, unless somebody has before."""
        pending = rows(TaskGroup).filter(pk=group.pk, status=TaskGroup.STATUS_PENDING)
        if not pending.update(status=TaskGroup.STATUS_SUCCESS, finished_at=self.at, updated_at=self.at):
            return
        steps = callback_steps(group)
        if steps:
            results = results_of(group) if wants_result(steps[0]) else None
            self.add(steps, cause=cause, result=results, origin=Origin(previous_group_id=group.pk))

    def fail(self, group: TaskGroup, failed_execution_id: int | None) -> None:
        """The group can't succeed any more; nor can a group that waits for what was to follow it."""
        pending = rows(TaskGroup).filter(pk=group.pk, status=TaskGroup.STATUS_PENDING)
        if pending.update(status=TaskGroup.STATUS_FAILED, finished_at=self.at, updated_at=self.at):
            self._call_with_id(group.on_failure, failed_execution_id)
            for waiting in groups_waited_for(callback_steps(group)):
                self.tallies[waiting].failed.append(failed_execution_id)

    def _tell_groups(self) -> None:
        """The one made last comes first, so that nobody who holds one waits for another who waits for it.

        A group that fails with another one was made before it.
        """
        while self.tallies:
            latest = max(self.tallies)
            self._count(latest, self.tallies.pop(latest))

    def _count(self, group_id: int, tally: Tally) -> None:
        """Add members that have ended to their group, and decide it if they were the last it waited for."""
        pending = rows(TaskGroup).filter(pk=group_id, status=TaskGroup.STATUS_PENDING)
        completed, failed = F("completed_count") + tally.succeeded, F("failed_count") + len(tally.failed)
        if not pending.update(completed_count=completed, failed_count=failed, updated_at=self.at):
            return
        group = pending.get()
        failed_execution_id = tally.failed[0] if tally.failed else None
        if failed_execution_id is not None and group.on_failure and ABOUT not in group.on_failure:
            group.on_failure[ABOUT] = failed_execution_id  # until all have ended, who was the first to fail
            pending.update(on_failure=group.on_failure)
        self.decide(group, failed_execution_id)

    def decide(self, group: TaskGroup, failed_execution_id: int | None = None) -> None:
        """Succeed or fail a pending group if its counts say so."""
        is_complete = group.completed_count + group.failed_count >= group.total_count
        if group.failed_count and (is_complete or not group.wait_for_all):
            self.fail(group, (group.on_failure or {}).get(ABOUT, failed_execution_id))
        elif is_complete and not group.failed_count:
            self.fire(group, None)

    def call_on_failure(self, execution: TaskExecution) -> None:
        """Plan what the call, or else its task, says is to run when it has failed."""
        spec = find(execution.task_path, execution.task_name)
        own = None if spec is None else spec.options.on_failure
        self._call_with_id((execution.options or {}).get("on_failure") or own, execution.pk)

    def _call_with_id(self, step: Step | None, execution_id: int | None) -> None:
        if step:
            called = {**step, "args": [execution_id, *step.get("args", [])]}
            called.pop(ABOUT, None)
            self.add([called], cause=execution_id)


def advance(finished: Sequence[Finished]) -> Plan:
    """Plan everything that follows from these ends. Not written yet."""
    plan = Plan(finished[0].at)
    for item in finished:
        if item.goes_on:
            origin = Origin(previous_id=item.execution.pk)
            plan.add(_next_steps(item), cause=item.execution.pk, result=item.result, origin=origin)
        elif not item.succeeded and item.execution.cancel_requested_at is None:
            plan.call_on_failure(item.execution)
    _tally_members(finished, plan)
    return plan


def own_steps(execution: TaskExecution) -> list[Step]:
    """The `on_success` of the execution's task: the first steps of its chain."""
    spec = find(execution.task_path, execution.task_name)
    own = [] if spec is None else list(spec.options.on_success)
    return own if own == (execution.chain or [])[: len(own)] else []


def _next_steps(item: Finished) -> list[Step]:
    """The execution's chain; RESULT is its result also in the step behind its task's own ones."""
    steps, own = list(item.execution.chain or []), len(own_steps(item.execution))
    if own < len(steps):
        steps[own] = filled_start(steps[own], item.result)
    return steps


def discount(revived: Iterable[TaskExecution], at: datetime) -> None:
    """Groups that still wait have counted these as failed: no more."""
    plan = Plan(at)
    _tally_members([Finished(execution, at, succeeded=False) for execution in revived], plan)
    for group_id in sorted(plan.tallies, reverse=True):
        failed = plan.tallies[group_id].failed
        pending = rows(TaskGroup).filter(pk=group_id, status=TaskGroup.STATUS_PENDING)
        if pending.update(failed_count=F("failed_count") - len(failed), updated_at=at):
            group = pending.get()
            if group.on_failure and group.on_failure.get(ABOUT) in failed:
                del group.on_failure[ABOUT]
                pending.update(on_failure=group.on_failure)


def create_group(
    group: Step, rest: Sequence[Step], *, at: datetime, total_count: int | None = None, origin: Origin = FIRST
) -> TaskGroup:
    """The row of a group of `group["members"]`, or of as many as are to come, with `rest` to follow it."""
    return rows(TaskGroup).create(
        **_callback_columns(rest),
        total_count=len(group["members"]) if total_count is None else total_count,
        deadline=at + timedelta(seconds=group["deadline_seconds"]) if "deadline_seconds" in group else None,
        on_failure=group.get("on_failure"),
        wait_for_all=group.get("wait_for_all", False),
        previous_id=origin.previous_id,
        part_of_id=origin.part_of_id,
    )


def append_to_callback(group: TaskGroup, step: Step) -> None:
    """Have `step` follow the group, after what follows it already."""
    columns = _callback_columns([*callback_steps(group), step])
    rows(TaskGroup).filter(pk=group.pk).update(**columns, updated_at=SYSTEM_CLOCK.now())


def callback_steps(group: TaskGroup) -> list[Step]:
    """What is to follow a group's success."""
    if not group.callback_task_name:
        return []
    callback: Step = {
        "module_name": group.callback_task_path,
        "func_name": group.callback_task_name,
        "args": group.callback_task_args,
        "kwargs": group.callback_task_kwargs,
        **(group.callback_options or {}),
    }
    return [callback, *(group.callback_chain or [])]


def _callback_columns(steps: Sequence[Step]) -> dict[str, Any]:
    """The inverse of `callback_steps`."""
    if steps and "group" in steps[0]:
        steps = [COLLECT, *steps]
    first = steps[0] if steps else {}
    named = ("module_name", "func_name", "args", "kwargs")
    return {
        "callback_task_path": first.get("module_name", ""),
        "callback_task_name": first.get("func_name", ""),
        "callback_task_args": first.get("args", []),
        "callback_task_kwargs": first.get("kwargs", {}),
        "callback_options": {key: value for key, value in first.items() if key not in named} or None,
        "callback_chain": list(steps[1:]) or None,
    }


def _ending_in_group(member: Sequence[Step], group_id: int, index: int) -> list[Step]:
    """A member's steps, of which the last one counts for the group."""
    *before, last = member
    if "group" in last or "task_group_id" in last:
        before, last = [*before, last], COLLECT
    return [*before, {**last, "task_group_id": group_id, "group_index": index}]


def filled_start(step: Step, result: Any) -> Step:
    """The step with `result` for RESULT; of a group, in those that its members begin with."""
    if "group" not in step:
        return filled(step, result)  # type: ignore[no-any-return]
    members = [[filled_start(first, result), *others] for first, *others in step["group"]["members"]]
    return {**step, "group": {**step["group"], "members": members}}


def _tally_members(finished: Iterable[Finished], plan: Plan) -> None:
    for item in finished:
        group_id = item.execution.task_group_id
        if group_id is not None and item.succeeded:
            plan.tallies[group_id].succeeded += 1
        never_to_end = [] if item.goes_on else groups_waited_for(item.execution.chain)
        if group_id is not None and not item.succeeded:
            never_to_end.append(group_id)
        for failed in never_to_end:
            plan.tallies[failed].failed.append(item.execution.pk)


def results_of(group: TaskGroup) -> list[Any]:
    """What the members returned, in their order."""
    results = rows(TaskExecutionResult).filter(
        task_execution_try__task_execution__task_group=group.pk, task_execution_try__is_success=True
    )
    in_order = results.order_by(
        "task_execution_try__task_execution__group_index", "task_execution_try__task_execution_id"
    )
    return list(in_order.values_list("result", flat=True))

"""The follow-ups of an execution's end: the next step of its chain, its group's count, callbacks of failure.

Everything here runs inside the transaction that settles the try, so each follow-up happens exactly once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F

from ..conf import get_config
from ..core.steps import Step, filled, groups_waited_for, is_step, slices, starts_with_result, wants_result
from ..core.values import RESULT_JSON
from ..exceptions import PermanentError
from ..models import GroupSlice, TaskExecution, TaskExecutionTry, TaskGroup
from ..registry import find
from ..telemetry import emit
from .database import alias, rows
from .enqueue import FIRST, NewExecution, Origin, from_step, insert
from .results import of_group
from .workflow_links import failed_within

WRITTEN_AT_ONCE = 500
"""How many calls a settlement begins to write at most: the writer has others to serve. The rest goes to slices."""
COLLECT: Step = {"module_name": "i3tasks.tasks", "func_name": "collect", "args": [RESULT_JSON], "kwargs": {}}
"""The call that a group makes when something follows it but it has no callback of its own."""


@dataclass(frozen=True, slots=True)
class Finished:
    """An execution that has ended in this transaction."""

    execution: TaskExecution
    at: datetime
    succeeded: bool
    result: Any = None

    @property
    def goes_on(self) -> bool:
        """Whether the next step of its chain runs. A success that came after a cancel request ends the chain."""
        return self.succeeded and self.execution.cancel_requested_at is None


Tally = list[bool]
"""Members of a group that have ended, in their order, but are not counted in its row yet: whether each succeeded."""


@dataclass(slots=True)
class Plan:
    """Executions to be written together, and what the groups are to count.

    `causes` has, for each of `calls`, the id of the execution whose end led to it, or None.
    `tallies` has, by group id, the ended members that are not counted yet.
    `sliced`: the members of groups that come after WRITTEN_AT_ONCE calls are written as slices (see `slices`).
    """

    at: datetime
    calls: list[NewExecution] = field(default_factory=list)
    causes: list[int | None] = field(default_factory=list)
    groups: list[TaskGroup] = field(default_factory=list)
    sliced: bool = False
    slices: list[GroupSlice] = field(default_factory=list)
    tallies: defaultdict[int, Tally] = field(default_factory=lambda: defaultdict(list))
    travels: dict[int, Any] = field(default_factory=dict)
    """The context that travels with calls that these executions lead to, by their ids."""
    travels_of_groups: dict[int, Any] = field(default_factory=dict)
    """The same of groups: that of one of the members."""

    def add(self, steps: Sequence[Step], *, cause: int | None, result: Any = None, origin: Origin = FIRST) -> None:
        """Plan the first of `steps`, with the others as its chain. For a group, plan all its members."""
        if not steps:
            return
        first, *rest = steps
        self._add(first, rest, cause, result, origin)

    def _add(self, first: Step, rest: Sequence[Step], cause: int | None, result: Any, origin: Origin) -> None:
        if "group" in first:
            self._add_group(first["group"], rest, cause, result, origin)
        else:
            self.calls.append(from_step(filled_start(first, result), rest, origin))
            self.causes.append(cause)

    def write(self) -> Sequence[TaskExecutionTry]:
        """Count the members that ended, insert what was planned, and give the new tries in the order of `causes`."""
        self._tell_groups()
        for members in self.slices:
            # One by one: `bulk_create` passes arrays, in which Psycopg would escape each quote of this JSON.
            members.save(using=alias(), force_insert=True)
        calls = [self._with_travels(call, cause) for call, cause in zip(self.calls, self.causes, strict=True)]
        return insert(self._of_present_groups(calls), now=self.at) if calls else []

    def _of_present_groups(self, calls: Sequence[NewExecution]) -> Sequence[NewExecution]:
        """The calls; those that were to join a group that has ended and is deleted join none."""
        joined = {call.task_group_id for call in calls if call.task_group_id is not None}
        joined -= {group.pk for group in self.groups}
        present = set(rows(TaskGroup).filter(pk__in=joined).values_list("pk", flat=True)) if joined else joined
        gone = joined - present
        if not gone:
            return calls
        return [
            replace(call, task_group_id=None, group_index=None) if call.task_group_id in gone else call
            for call in calls
        ]

    def _with_travels(self, call: NewExecution, cause: int | None) -> NewExecution:
        if call.trace_context is not None:
            return call
        if cause is None:
            travels = self.travels_of_groups.get(call.origin.previous_group_id or call.origin.part_of_id or 0)
        else:
            travels = self.travels.get(cause)
        return replace(call, trace_context=travels) if isinstance(travels, dict) else call

    def _add_group(self, group: Step, rest: Sequence[Step], cause: int | None, result: Any, origin: Origin) -> None:
        row = create_group(group, rest, at=self.at, origin=origin)
        self.groups.append(row)
        self.add_members(row.pk, group["members"], cause=cause, result=result)
        if not group["members"]:
            self.fire(row, cause)

    def add_members(
        self, group_id: int, members: Sequence[list[Step]], *, cause: int | None, result: Any, first_index: int = 0
    ) -> None:
        """Plan members of a group; `first_index` is the place of the first one among the group's results."""
        origin = Origin(part_of_id=group_id)
        for index, member in enumerate(members):
            if self.sliced and len(self.calls) >= WRITTEN_AT_ONCE:
                self._add_slices(group_id, members[index:], result, first_index + index)
                return
            first, *others = ending_in_group(member, group_id, first_index + index)
            self._add(first, others, cause, result, origin)

    def _add_slices(self, group_id: int, members: Sequence[list[Step]], result: Any, first_index: int) -> None:
        for start, some in slices(members, WRITTEN_AT_ONCE):
            wanted = result if any(starts_with_result(member[0]) for member in some) else None
            self.slices.append(
                GroupSlice(task_group_id=group_id, first_index=first_index + start, members=some, result=wanted)
            )

    def fire(self, group: TaskGroup, cause: int | None) -> None:
        """Mark a pending group as successful and plan its callback. A group that is not pending is left alone."""
        pending = rows(TaskGroup).filter(pk=group.pk, status=TaskGroup.STATUS_PENDING)
        if not pending.update(status=TaskGroup.STATUS_SUCCESS, finished_at=self.at, updated_at=self.at):
            return
        steps = callback_steps(group)
        if steps:
            results = of_group(group.pk) if wants_result(steps[0]) else None
            self.add(steps, cause=cause, result=results, origin=Origin(previous_group_id=group.pk))

    def fail(self, group: TaskGroup) -> None:
        """Mark a pending group as failed, and count it as a failed member of each group that waits for its callback."""
        pending = rows(TaskGroup).filter(pk=group.pk, status=TaskGroup.STATUS_PENDING)
        if pending.update(status=TaskGroup.STATUS_FAILED, finished_at=self.at, updated_at=self.at):
            if group.on_failure:
                self._call_with_id(group.on_failure, failed_within(group.pk))
            self.never_run(readable_callback_steps(group))

    def never_run(self, steps: Sequence[Step] | None) -> None:
        """Count these steps, which will not run, as failed members of the groups that wait for them."""
        for waiting in groups_waited_for(steps):
            self.tallies[waiting].append(False)

    def _tell_groups(self) -> None:
        """Count in each group, the newest group first: one order everywhere, so that transactions can't deadlock.

        A group that fails because of another one is always the older of the two.
        """
        while self.tallies:
            latest = max(self.tallies)
            self._count(latest, self.tallies.pop(latest))

    def _count(self, group_id: int, tally: Tally) -> None:
        """Add members that have ended to their group, and decide the group if no other member is awaited.

        Members that it was not told to expect are refused, whether they end together with its last one or later.
        """
        group = rows(TaskGroup).filter(pk=group_id).first()
        if group is None or group.status == TaskGroup.STATUS_FAILED:
            return
        is_pending = group.status == TaskGroup.STATUS_PENDING
        room = group.total_count - group.completed_count - group.failed_count if is_pending else 0
        counted, refused = tally[:room], tally[room:]
        if refused:
            emit("member_not_counted", group_id=group_id, members=len(refused), total_count=group.total_count)
        if counted:
            group.completed_count += sum(counted)
            group.failed_count += len(counted) - sum(counted)
            counts = {"completed_count": group.completed_count, "failed_count": group.failed_count}
            rows(TaskGroup).filter(pk=group_id).update(**counts, updated_at=self.at)
            self.decide(group)

    def decide(self, group: TaskGroup) -> None:
        """Succeed or fail a pending group if its counts say so."""
        is_complete = group.completed_count + group.failed_count >= group.total_count
        if group.failed_count and (is_complete or not group.wait_for_all):
            self.fail(group)
        elif is_complete and not group.failed_count:
            self.fire(group, None)

    def call_on_failure(self, execution: TaskExecution) -> None:
        """Plan the `on_failure` of the call, or else of its task."""
        spec = find(execution.task_path, execution.task_name)
        own = None if spec is None else spec.options.on_failure
        options = execution.options if isinstance(execution.options, dict) else {}
        self._call_with_id(options.get("on_failure") or own, execution.pk)

    def _call_with_id(self, step: Step | None, execution_id: int | None) -> None:
        """Plan a callback of failure. A row that holds no such step must not keep the failure from being recorded."""
        if step and not is_step(step):
            emit("callback_broken", execution_id=execution_id, step=repr(step))
        elif step:
            self.add([{**step, "args": [execution_id, *step.get("args", [])]}], cause=execution_id)


def advance(finished: Sequence[Finished], *, sliced: bool) -> Plan:
    """Plan everything that follows from these ends. `Plan.write` writes it; with `sliced`, of large groups a part."""
    plan = Plan(finished[0].at, sliced=sliced)
    for item in finished:
        plan.travels[item.execution.pk] = item.execution.trace_context
        if item.execution.task_group_id is not None:
            plan.travels_of_groups[item.execution.task_group_id] = item.execution.trace_context
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
    chain = execution.chain if isinstance(execution.chain, list) else []
    return own if own == chain[: len(own)] else []


def _next_steps(item: Finished) -> list[Step]:
    """The execution's chain. The step after the task's own `on_success` gets this execution's result, too."""
    steps, own = _steps(item.execution.chain), len(own_steps(item.execution))
    if own < len(steps):
        steps[own] = filled_start(steps[own], item.result)
    return steps


def discount(revived: Iterable[TaskExecution], at: datetime) -> None:
    """Take these executions out of the failures that pending groups have counted."""
    plan = Plan(at)
    _tally_members([Finished(execution, at, succeeded=False) for execution in revived], plan)
    for group_id in sorted(plan.tallies, reverse=True):
        pending = rows(TaskGroup).filter(pk=group_id, status=TaskGroup.STATUS_PENDING)
        pending.update(failed_count=F("failed_count") - len(plan.tallies[group_id]), updated_at=at)


def create_group(
    group: Step, rest: Sequence[Step], *, at: datetime, total_count: int | None = None, origin: Origin = FIRST
) -> TaskGroup:
    """Insert the row of a group of `group["members"]`, or of `total_count` members to come; `rest` follows it."""
    return rows(TaskGroup).create(
        **_callback_columns(rest),
        total_count=len(group["members"]) if total_count is None else total_count,
        deadline=at + timedelta(seconds=group["deadline_seconds"]) if "deadline_seconds" in group else None,
        on_failure=group.get("on_failure"),
        wait_for_all=group.get("wait_for_all", False),
        previous_id=origin.previous_id,
        part_of_id=origin.part_of_id,
    )


def append_to_callback(group: TaskGroup, step: Step, at: datetime) -> None:
    """Add `step` to the end of what follows the group."""
    columns = _callback_columns([*callback_steps(group), step])
    rows(TaskGroup).filter(pk=group.pk).update(**columns, updated_at=at)


def callback_steps(group: TaskGroup) -> list[Step]:
    """The steps that follow a group's success: its callback and the callback's chain."""
    if not group.callback_task_name:
        return []
    callback: Step = {
        "module_name": group.callback_task_path,
        "func_name": group.callback_task_name,
        "args": group.callback_task_args,
        "kwargs": group.callback_task_kwargs,
        **(group.callback_options or {}),
    }
    return [callback, *_steps(group.callback_chain)]


def _steps(stored: Any) -> list[Step]:
    """The steps that a row holds. Raises PermanentError when it holds something else."""
    steps = [] if stored is None else stored
    if not isinstance(steps, list) or not all(map(is_step, steps)):
        raise PermanentError(f"The row's chain is no list of steps, but {stored!r:.200}. Look for what wrote the row.")
    return list(steps)


def readable_callback_steps(group: TaskGroup) -> list[Step]:
    """`callback_steps` as far as the row can be read: a failure is recorded even if the row holds something else."""
    try:
        return callback_steps(group)
    except (PermanentError, TypeError, ValueError):
        return []


def _callback_columns(steps: Sequence[Step]) -> dict[str, Any]:
    """The columns of a group that `callback_steps` reads as these steps."""
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


def ending_in_group(member: Sequence[Step], group_id: int, index: int) -> list[Step]:
    """The member's steps, the last one marked as the one that counts for the group."""
    *before, last = member
    if "group" in last or "task_group_id" in last:
        before, last = [*before, last], COLLECT
    return [*before, {**last, "task_group_id": group_id, "group_index": index}]


def filled_start(step: Step, result: Any) -> Step:
    """The step with `result` for RESULT. In a group, the first step of each member gets it."""
    if "group" not in step:
        return filled(step, result, get_config().settings.maximum_payload_bytes)
    members = [[filled_start(first, result), *others] for first, *others in step["group"]["members"]]
    return {**step, "group": {**step["group"], "members": members}}


def _tally_members(finished: Iterable[Finished], plan: Plan) -> None:
    for item in finished:
        group_id = item.execution.task_group_id
        if group_id is not None:
            plan.tallies[group_id].append(item.succeeded)
        if not item.goes_on:
            plan.never_run(item.execution.chain)

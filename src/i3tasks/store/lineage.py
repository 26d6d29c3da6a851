"""The executions before and after an execution: the steps of its chain, and the groups that it is part of or opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.steps import is_step
from ..models import TaskExecution, TaskGroup
from .database import rows
from .search import loaded

MOST_STEPS = 6
"""Most steps that are followed in each direction."""
MOST_MEMBERS = 5
"""Most members of a group that are read."""
MOST_SORTED = 10_000
"""Members of a group of which the first are looked for."""
_GROUP = ("id", "status", "total_count", "completed_count", "failed_count", "previous_id", "part_of_id")


@dataclass(frozen=True, slots=True)
class Node:
    """An execution, a group with some of its members, or a step that is still to be enqueued (with neither)."""

    label: str
    execution: Any = None
    group: TaskGroup | None = None
    members: Sequence[Any] = ()


@dataclass(slots=True)
class Lineage:
    """The nodes before and after an execution, in the order of time. `more_...`: there are further ones at that end."""

    before: list[Node] = field(default_factory=list)
    after: list[Node] = field(default_factory=list)
    more_before: bool = False
    more_after: bool = False

    def __bool__(self) -> bool:
        return bool(self.before or self.after)


def lineage(execution: TaskExecution) -> Lineage:
    """Read the lineage: a few queries by primary keys and indexes, however long the chain is."""
    found = Lineage()
    _read_before(found, execution)
    _read_after(found, execution)
    return found


def _read_before(found: Lineage, execution: TaskExecution) -> None:
    cause = _cause(execution)
    while cause is not None:
        if len(found.before) == MOST_STEPS:
            found.more_before = True
            return
        found.before.insert(0, cause)
        cause = _cause(cause.execution) if cause.execution is not None else _opener(cause.group)


def _cause(execution: TaskExecution) -> Node | None:
    """The step before it; for the first step of a member, the step that opened the group."""
    if execution.previous_id is not None:
        return _execution(execution.previous_id)
    if execution.previous_group_id is not None:
        return _group(execution.previous_group_id)
    opened_by = execution.task_group_id or execution.part_of_id
    group = None if opened_by is None else _group(opened_by)
    return None if group is None else _opener(group.group)


def _opener(group: TaskGroup | None) -> Node | None:
    return None if group is None or group.previous_id is None else _execution(group.previous_id)


def _read_after(found: Lineage, execution: TaskExecution) -> None:
    last: TaskExecution | None = execution
    while last is not None:
        nodes, last = _effect(last)
        found.after += nodes
        if len(found.after) > MOST_STEPS:
            del found.after[MOST_STEPS:]
            found.more_after = True
            return


def _effect(execution: TaskExecution) -> tuple[list[Node], TaskExecution | None]:
    """The node that follows an execution directly, and the execution to go on from."""
    following = rows(TaskExecution).filter(previous=execution.pk).values_list("pk", flat=True).first()
    if following is not None:
        node = _execution(following)
        return ([node], node.execution) if node else ([], None)
    opened = rows(TaskGroup).filter(previous=execution.pk).values_list("pk", flat=True).first()
    if opened is not None:
        node = _group(opened, with_members=True)
        return _after_group(node)
    planned = [Node(_label(step)) for step in _steps(execution)]
    group = None if execution.task_group_id is None else _group(execution.task_group_id, with_members=True)
    behind, last = _after_group(group)
    return [*planned, *behind], last


def _after_group(node: Node | None) -> tuple[list[Node], TaskExecution | None]:
    if node is None or node.group is None:
        return [], None
    callback = rows(TaskExecution).filter(previous_group=node.group.pk).values_list("pk", flat=True).first()
    if callback is not None:
        after = _execution(callback)
        return ([node, after], after.execution) if after else ([node], None)
    group = node.group
    named = group.callback_task_name and group.status == TaskGroup.STATUS_PENDING
    return [node, *([Node(group.callback_task_name)] if named else [])], None


def _steps(execution: TaskExecution) -> list[Any]:
    """The steps of its chain that have not been enqueued."""
    if execution.outcome is not None:
        return []
    chain = rows(TaskExecution).filter(pk=execution.pk).values_list("chain", flat=True).first()
    return [step for step in chain if is_step(step)] if isinstance(chain, list) else []


def _label(step: Any) -> str:
    members = step.get("group", {}).get("members") if isinstance(step.get("group"), dict) else None
    return f"group of {len(members)}" if isinstance(members, list) else str(step.get("func_name", "group"))


def _execution(pk: int) -> Node | None:
    found = loaded([pk])
    return Node(found[0].task_name, execution=found[0]) if found else None


def _group(pk: int, *, with_members: bool = False) -> Node | None:
    columns = (*_GROUP, "callback_task_name")
    group = rows(TaskGroup).filter(pk=pk).only(*columns).first()
    if group is None:
        return None
    members = some_members(group, MOST_MEMBERS) if with_members else ()
    return Node(f"group #{pk}", group=group, members=members)


def some_members(group: TaskGroup, most: int) -> list[Any]:
    """Members with their `latest` try: the first ones, but of a large group those that are quickly found.

    The index of the members knows no order of theirs; to sort a million, or to look for them by id, takes a second.
    """
    found = rows(TaskExecution).filter(task_group=group.pk)
    if group.total_count <= MOST_SORTED:
        found = found.order_by("group_index", "pk")
    return loaded(list(found.values_list("pk", flat=True)[:most]))

"""Steps: the calls that a chain, a group or a hook will make, as the JSON that rows carry.

A step is `{"module_name", "func_name", "args", "kwargs"}`, as in django-i3tasks, and may have more keys:

    options, queue_name, priority   of the call
    on_success, on_failure          steps of this call's own
    task_group_id, group_index      the group that the call is a member of, and its place there
    group                           instead of a task: {"members": [[step, ...], ...], "on_failure", "wait_for_all"}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from ..exceptions import PermanentError
from .text import MAXIMUM_BYTES
from .values import JSON, placeholders, unavailable, with_result

Step = dict[str, Any]

_TOO_LARGE = (
    "With the previous result for RESULT, the arguments take more than {:,} bytes as JSON, the most that I3TASKS "
    "allows (maximum_payload_bytes). Keep large data in a file, a bucket or a table, and return where it is."
)


class AsSteps(Protocol):
    """A part of a workflow: a signature, a chain, a group, a task, or a handle of `build_chain()`."""

    def as_steps(self) -> list[Step]:
        """The steps, in the order in which they run."""
        ...


class Steppable(Protocol):
    """A task, which makes a step of arguments; or a signature, which has its arguments and takes none."""

    def as_step(self, /, *args: Any, **kwargs: Any) -> Step:
        """The step that calls the task with these arguments. Raises ArgumentError if it does not take them."""
        ...


def wants_result(step: Mapping[str, Any]) -> bool:
    """Whether the step's arguments ask for the previous step's result."""
    return any(map(placeholders, _arguments(step)))


def starts_with_result(step: Step) -> bool:
    """Whether the step wants the previous step's result; of a group, whether the first step of any member does."""
    if "group" in step:
        return any(starts_with_result(member[0]) for member in step["group"]["members"])
    return wants_result(step)


def weight(member: Any) -> int:
    """How many calls a group's member begins with: one, or as many as the group that is its first step.

    Raises PermanentError if it is no list of steps.
    """
    if not isinstance(member, list) or not member or not all(map(is_step, member)):
        raise PermanentError(
            f"A member of the group is no list of steps, but {member!r:.200}. Look for what wrote the row."
        )
    return max(1, sum(map(weight, _members(member[0]))))


def slices(members: Sequence[Any], most: int) -> Iterator[tuple[int, Sequence[Any]]]:
    """The members in slices that begin with at most so many calls, each slice with the index of its first member."""
    start, size = 0, 0
    for index, member in enumerate(members):
        own = weight(member)
        if index > start and size + own > most:
            yield start, members[start:index]
            start, size = index, 0
        size += own
    if start < len(members):
        yield start, members[start:]


def filled(step: Step, result: JSON, limit: int = MAXIMUM_BYTES) -> Step:
    """The step with `result` for each RESULT among its arguments.

    Arguments that take more than `limit` bytes then are left out, and the step fails with a sentence that says so.
    """
    arguments = _arguments(step)
    count = sum(map(placeholders, arguments))
    if not count:
        return step
    if _size(arguments) + count * _size(result) > limit:
        return {**step, "args": [unavailable(_TOO_LARGE.format(limit))], "kwargs": {}}
    args, *values = (with_result(argument, result) for argument in arguments)
    return {**step, "args": args, "kwargs": dict(zip(step.get("kwargs") or (), values, strict=True))}


def groups_waited_for(steps: Any) -> list[int]:
    """The groups that have one of these steps, or a step of a group among them, as a member; one id for each member.

    They would wait for ever if it never ran. Steps of another shape, which only a row that no call has written can
    hold, are members of none.
    """
    found: list[int] = []
    for step in filter(is_step, steps if isinstance(steps, list) else ()):
        if isinstance(step.get("task_group_id"), int):
            found.append(step["task_group_id"])
        for member in _members(step):
            found += groups_waited_for(member)
    return found


def is_step(value: Any) -> bool:
    """Whether a row's JSON has the shape of a step."""
    if not isinstance(value, dict):
        return False
    named = isinstance(value.get("module_name"), str) and isinstance(value.get("func_name"), str)
    return "group" in value or (named and isinstance(value.get("args", []), list))


def _members(step: Step) -> list[Any]:
    group = step.get("group")
    members = group.get("members") if isinstance(group, dict) else None
    return members if isinstance(members, list) else []


def _arguments(step: Mapping[str, Any]) -> list[JSON]:
    """The positional arguments, and the value of each keyword. The names of keywords are a caller's, and no markup."""
    return [step.get("args") or [], *(step.get("kwargs") or {}).values()]


def _size(value: JSON) -> int:
    """In bytes, about."""
    try:
        return len(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        return sys.maxsize

"""Steps: what a chain, a group or a hook will call, as the JSON that rows carry.

A step is `{"module_name", "func_name", "args", "kwargs"}`, as in django-i3tasks, and may have more keys:

    options, queue_name, priority   of the call
    on_success, on_failure          steps of this call's own
    task_group_id, group_index      the group that the call is a member of, and its place there
    group                           instead of a task: {"members": [[step, ...], ...], "on_failure", "wait_for_all"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .values import TAG

Step = dict[str, Any]
JSON = Any


class AsSteps(Protocol):
    """What a workflow can be made of: a signature, a chain, a group, a task, a handle of `build_chain()`."""

    def as_steps(self) -> list[Step]:
        """The steps, in the order of their running."""
        ...


class Steppable(Protocol):
    """A task: gives a step for some arguments. A signature gives its own, and takes none."""

    def as_step(self, *args: Any, **kwargs: Any) -> Step:
        """The step that calls the task with these arguments."""
        ...


RESULT_JSON: JSON = {TAG: "result", "value": None}
"""Stands, among a step's arguments, for what the step before returned."""


def wants_result(step: Mapping[str, Any]) -> bool:
    """Whether the step's arguments ask for the result of the one before."""
    return _contains_placeholder([step.get("args"), step.get("kwargs")])


def filled(value: JSON, result: JSON) -> JSON:
    """`value` with each placeholder replaced by `result`."""
    if value == RESULT_JSON:
        return result
    if isinstance(value, list):
        return [filled(item, result) for item in value]
    if isinstance(value, dict):
        return {key: filled(item, result) for key, item in value.items()}
    return value


def groups_waited_for(steps: Sequence[Mapping[str, Any]] | None) -> list[int]:
    """The groups that would wait for ever if these steps never ran."""
    return [step["task_group_id"] for step in steps or () if step.get("task_group_id")]


def _contains_placeholder(value: JSON) -> bool:
    if value == RESULT_JSON:
        return True
    if isinstance(value, dict):
        return any(_contains_placeholder(item) for item in value.values())
    return isinstance(value, list) and any(_contains_placeholder(item) for item in value)

"""The arguments of a call: whether its task takes them, and their form as JSON data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..conf import get_config
from ..core.values import JSON, encode_arguments
from ..exceptions import ArgumentError
from ..models import TaskGroup
from ..registry import TaskSpec

if TYPE_CHECKING:
    from ..core.steps import Step
    from .common import Common

GROUP_KEYWORD = "__i3group__"


def argument_problem(spec: TaskSpec, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Why the task does not take these arguments, in a sentence; "" if it does."""
    if GROUP_KEYWORD in kwargs:
        kwargs = {name: kwargs[name] for name in kwargs if name != GROUP_KEYWORD}
    return spec.argument_problem(args, kwargs)


def encoded(
    args: Sequence[Any], kwargs: Mapping[str, Any], *, of_step: bool = False
) -> tuple[list[JSON], dict[str, JSON], int | None]:
    """The arguments as JSON data, and the id of the group that the call is to join. Raises ArgumentError."""
    task_group_id = None
    if GROUP_KEYWORD in kwargs:
        kwargs = dict(kwargs)
        group = kwargs.pop(GROUP_KEYWORD)
        if group is not None and not isinstance(group, TaskGroup):
            raise ArgumentError(f"{GROUP_KEYWORD} must be a TaskGroup, not {group!r:.80}.")
        task_group_id = None if group is None else group.pk
    limit = get_config().settings.maximum_payload_bytes
    return (*encode_arguments(args, kwargs, limit=limit, of_step=of_step), task_group_id)


def step_of(common: Common, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Step:
    """The step that calls the task with these arguments. Raises ArgumentError for options that fit no step."""
    if common.is_keyed or common.options.is_deferred:
        raise ArgumentError(
            "A workflow's step runs in its turn: run_after, until, idempotency_key and unique don't fit."
        )
    encoded_args, encoded_kwargs, task_group_id = encoded(args, kwargs, of_step=True)
    step = {
        "module_name": common.spec.module_name,
        "func_name": common.spec.func_name,
        "args": encoded_args,
        "kwargs": encoded_kwargs,
        **common.in_step,
    }
    return step if task_group_id is None else {**step, "task_group_id": task_group_id}

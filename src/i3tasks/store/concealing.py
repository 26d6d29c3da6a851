"""Rows as people may see them: without the arguments that their tasks declare `sensitive`."""

from __future__ import annotations

from typing import Any

from ..core.concealing import concealed_steps
from ..core.values import shown, shown_keywords
from ..models import TaskExecution, TaskGroup
from ..registry import find

_STEPS = {
    TaskExecution: ("chain", "options"),
    TaskGroup: ("callback_chain", "callback_options", "on_failure"),
}


def arguments_of(module_name: str, func_name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The stored arguments of a call. Of a task that this process does not know, they are shown as they are."""
    spec = find(module_name, func_name)
    return (args, kwargs) if spec is None else spec.concealed(args, kwargs)


def has_secrets(module_name: str, func_name: str) -> bool:
    """Whether the task has sensitive arguments."""
    spec = find(module_name, func_name)
    return spec is not None and bool(spec.options.sensitive)


def call_text(module_name: str, func_name: str, args: Any, kwargs: Any) -> str:
    """`1, 'x', total=2`: a call's arguments in a line of text."""
    args, kwargs = arguments_of(module_name, func_name, args, kwargs)
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        return f"{args!r}, {kwargs!r}"
    named = [f"{name}={value!r}" for name, value in shown_keywords(kwargs).items()]
    return ", ".join([*map(repr, shown(args)), *named])


def column_of(row: Any, name: str) -> Any:
    """The value of a row's column."""
    value = getattr(row, name)
    if isinstance(row, TaskExecution) and name in ("task_args", "task_kwargs"):
        args, kwargs = arguments_of(row.task_path, row.task_name, row.task_args, row.task_kwargs)
        return args if name == "task_args" else kwargs
    if isinstance(row, TaskGroup) and name in ("callback_task_args", "callback_task_kwargs"):
        names = row.callback_task_path, row.callback_task_name
        args, kwargs = arguments_of(*names, row.callback_task_args, row.callback_task_kwargs)
        return args if name == "callback_task_args" else kwargs
    return concealed_steps(value, arguments_of) if name in _STEPS.get(type(row), ()) else value

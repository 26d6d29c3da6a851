"""Parts of workflows as callers give them: their steps, or an error that says what to write instead."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..exceptions import ArgumentError
from ..models import TaskExecutionTry, TaskGroup

if TYPE_CHECKING:
    from ..core.steps import Step

_TWINS = ("adelay", "adelay_until", "adelay_many", "arun")
"""Methods whose coroutines are given in place of a signature."""


def steps_of(where: str, part: Any) -> list[Step]:
    """The steps of a signature, a task, a chain, a group, or a handle of `build_chain()`. Raises ArgumentError."""
    if isinstance(part, type) or not hasattr(part, "as_steps"):
        raise ArgumentError(f"{where} takes signatures, such as send.s(1), and not {_described(part)}")
    steps: list[Step] = part.as_steps()
    return steps


def step_of(where: str, part: Any, *args: Any, **kwargs: Any) -> Step:
    """The step of a task with these arguments, or of a signature, which has its own. Raises ArgumentError."""
    _require_steppable(where, part)
    step: Step = part.as_step(*args, **kwargs)
    return step


def failure_step(where: str, part: Any) -> Step:
    """The step of a task or a signature that is called with the id of a failed execution. Raises ArgumentError."""
    _require_steppable(where, part)
    step: Step = part._failure_step()
    return step


def flat(members: Iterable[Any]) -> Iterator[Any]:
    """The members of a group, which may be given one by one or in an iterable."""
    for member in members:
        is_many = isinstance(member, Iterable) and not isinstance(member, (str, bytes, Mapping))
        if is_many and not hasattr(member, "as_steps"):
            yield from member
        else:
            yield member


def _require_steppable(where: str, part: Any) -> None:
    if isinstance(part, type) or not hasattr(part, "as_step"):
        raise ArgumentError(f"{where} takes a task, or a signature such as send.s(1), and not {_described(part)}")


def _described(part: Any) -> str:
    """What was given instead, and what to do."""
    if inspect.iscoroutine(part):
        part.close()  # or Python warns that it was never awaited
        if part.__name__ in _TWINS:
            return f"the coroutine of {part.__name__}(...). Write .s(...) instead of .{part.__name__}(...)."
        return f"the coroutine of {part.__name__}(...), which is a plain call. Write {part.__name__}.s(...)."
    if isinstance(part, TaskExecutionTry):
        task_name = part.task_execution.task_name
        return f"a try of {task_name}, which has run already. Write {task_name}.s(...)."
    if isinstance(part, TaskGroup):
        return "a group that has been enqueued already. Pass the group itself, without .delay()."
    if getattr(part, "task_execution", None) is not None:
        return (
            f"the handle of {part.task_execution.task_name}, which has been enqueued already. Write .s(...) instead of "
            ".delay(...)."
        )
    if hasattr(part, "module_path"):  # of Django's tasks framework
        return f"the Django task {part.module_path}. Write as_task({part.func.__name__}).s(...), of i3tasks.backend."
    if inspect.ismethod(part):
        return f"the method {part.__name__} itself. Write .s(...) instead, with the task's arguments."
    if isinstance(part, Iterable) and not isinstance(part, (str, bytes, Mapping)) and not hasattr(part, "as_steps"):
        return f"a {type(part).__name__}, {part!r:.80}. Give its members one by one: f(*members)."
    if inspect.isroutine(part):
        return f"the function {part.__name__}. Decorate it with @task, and pass {part.__name__}.s(...)."
    if hasattr(part, "as_steps"):
        return f"a {type(part).__name__}. Give a single task."
    return f"{part!r:.80}, a {type(part).__name__}. If it is what a task returned: write .s(...) to call it later."

"""The methods of the model TaskGroup. They use layers above the models, so they are added to it here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from ..core.clock import current_clock
from ..engine.launch import launch, refuse_in_loop
from ..exceptions import ArgumentError
from ..models import TaskGroup
from ..store.database import atomic, time_of

if TYPE_CHECKING:
    from ..core.steps import AsSteps, Step
    from .handles import ChainHandle


def _create(
    cls: type[TaskGroup],
    callback: AsSteps,
    total_count: int,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> TaskGroup:
    """Make a group of `total_count` members. Each is enqueued with the keyword `__i3group__=group`.

    `callback` (a task, with `args` and `kwargs`, or a handle of `build_chain()`) runs when all have succeeded; at once
    if `total_count` is 0.
    """
    from ..store.workflows import Plan, create_group
    from .workflow_parts import step_of

    refuse_in_loop("TaskGroup.create", "TaskGroup.acreate")
    if hasattr(callback, "as_step"):
        steps = [step_of("TaskGroup.create()", callback, *(args or ()), **(kwargs or {}))]
    elif args or kwargs:
        raise ValueError("A chain as callback has its arguments already: leave out args and kwargs.")
    else:
        steps = _steps_of_callback(callback)
    if not steps:
        raise ValueError("The callback's chain has no step. Begin it with task.build_chain().")
    if total_count < 0:
        raise ValueError("total_count must be 0 or more.")
    with atomic():
        plan = Plan(current_clock().now())
        row = create_group({}, steps, at=plan.at, total_count=total_count)
        if total_count == 0:
            plan.fire(row, None)
        tries = plan.write()
    launch(tries)
    if total_count == 0:
        row.refresh_from_db()
    return row


def _steps_of_callback(callback: AsSteps) -> list[Step]:
    from .workflow_parts import steps_of

    try:
        return steps_of("TaskGroup.create()", callback)
    except ArgumentError as error:
        raise ValueError(str(error)) from error  # as for a chain without steps


async def _acreate(cls: type[TaskGroup], *args: Any, **kwargs: Any) -> TaskGroup:
    """`create` for coroutines."""
    return await sync_to_async(cls.create)(*args, **kwargs)


def _close(self: TaskGroup) -> None:
    """Expect no further members: the group succeeds or fails by those that have ended.

    Meant for a group whose `total_count` was too high.
    """
    from ..store.groups import close_group

    refuse_in_loop("close", "aclose")
    launch(close_group(self.pk, now=time_of(current_clock())))
    self.refresh_from_db()


def _cancel(self: TaskGroup) -> None:
    """Cancel all unfinished parts of the group: members, the chains and groups that lead to them, and the callback.

    A pending group fails.
    """
    from ..store.groups import cancel_group

    refuse_in_loop("cancel", "acancel")
    launch(cancel_group(self.pk, now=time_of(current_clock())))
    self.refresh_from_db()


def _result(self: TaskGroup, timeout: float | None = None) -> Any:
    """Wait for the group, and return the result of the last step that follows it; without one, its members' results.

    Raises as `ChainHandle.result` does.
    """
    return _handle_of(self).result(timeout)


async def _aresult(self: TaskGroup, timeout: float | None = None) -> Any:
    """`result` for coroutines."""
    return await _handle_of(self).aresult(timeout)


def _handle_of(started: TaskGroup) -> ChainHandle[Any]:
    from .handles import ChainHandle  # late: every process that loads the app imports this module

    return ChainHandle(None, [], started, vars(started).get("_written"))


async def _aclose(self: TaskGroup) -> None:
    """`close` for coroutines."""
    await sync_to_async(self.close)()


async def _acancel(self: TaskGroup) -> None:
    """`cancel` for coroutines."""
    await sync_to_async(self.cancel)()


# `apps` imports this module.
for _name, _method in {
    "create": classmethod(_create),
    "acreate": classmethod(_acreate),
    "close": _close,
    "aclose": _aclose,
    "cancel": _cancel,
    "acancel": _acancel,
    "result": _result,
    "aresult": _aresult,
}.items():
    setattr(TaskGroup, _name, _method)

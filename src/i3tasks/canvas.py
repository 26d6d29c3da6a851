"""Workflows: signatures, chains and groups.

    await chain(fetch.s(url), parse.s(RESULT), store.s(RESULT)).adelay()
    await group(resize.s(path) for path in paths).then(publish_album.s(RESULT)).adelay()

Everything is turned into steps (see `steps`) and written in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from asgiref.sync import sync_to_async

from .clock import SYSTEM_CLOCK
from .engine.launch import launch
from .exceptions import ArgumentError
from .handles import ChainHandle
from .models import TaskGroup
from .steps import AsSteps, Step, Steppable, wants_result
from .store.database import atomic
from .store.groups import cancel_group, close_group
from .store.workflows import Plan, create_group

T = TypeVar("T", covariant=True)


@dataclass(frozen=True, slots=True)
class Signature(Generic[T]):
    """A task bound to arguments and options: `send.s("a@example.com")`."""

    step: Step

    def as_step(self, *args: Any, **kwargs: Any) -> Step:
        if args or kwargs:
            raise ArgumentError("A signature has its arguments already. Pass them to .s(), or pass the task itself.")
        return self.step

    def as_steps(self) -> list[Step]:
        return [self.step]

    def __or__(self, other: AsSteps) -> chain:
        return chain(self, other)

    def delay(self) -> ChainHandle[T]:
        """Enqueue the call, as part of the caller's transaction."""
        return _start(self.as_steps())

    async def adelay(self) -> ChainHandle[T]:
        """`delay` for coroutines."""
        return await sync_to_async(self.delay)()


class chain:
    """Steps that run one after the other, each when the one before has succeeded. Also `a.s() | b.s()`.

    An argument `RESULT` of a step stands for what the step before returned (after a group: the list of its members'
    results, in their order).
    """

    def __init__(self, *parts: AsSteps) -> None:
        self._steps = [step for part in parts for step in part.as_steps()]

    def as_steps(self) -> list[Step]:
        return list(self._steps)

    def __or__(self, other: AsSteps) -> chain:
        return chain(self, other)

    def otherwise(self, failure: Steppable) -> chain:
        """When a step fails for good, call `failure` with that execution's id as its first argument, once."""
        step = failure.as_step()
        changed = chain()
        changed._steps = [_with_failure(own, step) for own in self._steps]
        return changed

    def delay(self) -> ChainHandle[Any]:
        """Enqueue the chain, as part of the caller's transaction."""
        return _start(self._steps)

    async def adelay(self) -> ChainHandle[Any]:
        """`delay` for coroutines."""
        return await sync_to_async(self.delay)()


class group:
    """Members that run side by side, and what follows when all have succeeded.

    `wait_for_all`: a failed member does not fail the group until the others have ended, too. `deadline`, in seconds or
    a timedelta from the group's start: what has not succeeded by then has failed.
    """

    def __init__(
        self,
        *members: AsSteps | Iterable[AsSteps],
        wait_for_all: bool = False,
        deadline: float | timedelta | None = None,
    ) -> None:
        self._members = [part.as_steps() for part in _flat(members)]
        if not all(self._members):
            raise ArgumentError("A member of the group has no step. Leave empty chains out.")
        self._settings: Step = {"wait_for_all": wait_for_all}
        if deadline is not None:
            self._settings["deadline_seconds"] = (
                deadline.total_seconds() if isinstance(deadline, timedelta) else float(deadline)
            )
        self._then: list[Step] = []

    def as_steps(self) -> list[Step]:
        return [{"group": {"members": self._members, **self._settings}}, *self._then]

    def __or__(self, other: AsSteps) -> chain:
        return chain(self, other)

    def then(self, callback: AsSteps) -> group:
        """Run this when every member has succeeded."""
        return self._changed(then=[*self._then, *callback.as_steps()])

    def otherwise(self, failure: Steppable) -> group:
        """When the group fails, call `failure` with the id of a failed execution as its first argument, once."""
        return self._changed(settings={**self._settings, "on_failure": failure.as_step()})

    def delay(self) -> TaskGroup:
        """Enqueue all members, as part of the caller's transaction."""
        started = _start(self.as_steps()).task_group
        assert started is not None
        started.refresh_from_db()  # an empty group has succeeded
        return started

    async def adelay(self) -> TaskGroup:
        """`delay` for coroutines."""
        return await sync_to_async(self.delay)()

    def _changed(self, *, then: list[Step] | None = None, settings: Step | None = None) -> group:
        changed = group()
        changed._members = self._members
        changed._then = self._then if then is None else then
        changed._settings = self._settings if settings is None else settings
        return changed


def _start(steps: Sequence[Step]) -> ChainHandle[Any]:
    """Write the beginning of a workflow, and publish it after the commit."""
    if not steps:
        raise ArgumentError("The workflow has no step.")
    if _starts_with_placeholder(steps[0]):
        raise ArgumentError("RESULT stands for what the step before returned, and the first step has none before it.")
    with atomic():
        plan = Plan(SYSTEM_CLOCK.now())
        plan.add(steps, cause=None)
        tries = plan.write()
    launch(tries)
    if "group" in steps[0]:
        return ChainHandle(None, list(steps), plan.groups[0])
    return ChainHandle(tries[0], list(steps[1:]))


def _starts_with_placeholder(step: Step) -> bool:
    if "group" in step:
        return any(_starts_with_placeholder(member[0]) for member in step["group"]["members"])
    return wants_result(step)


def _with_failure(step: Step, failure: Step) -> Step:
    """The step with what to call when it fails, unless it says so itself."""
    if "group" in step:
        return {**step, "group": {"on_failure": failure, **step["group"]}}
    return {**step, "options": {"on_failure": failure, **step.get("options", {})}}


def _flat(members: Iterable[Any]) -> Iterable[AsSteps]:
    for member in members:
        yield from [member] if hasattr(member, "as_steps") else member


# ------------------------------------------------------------------------------------------- methods of TaskGroup


def _create(
    cls: type[TaskGroup],
    callback: AsSteps,
    total_count: int,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> TaskGroup:
    """Make a group of `total_count` members, which name it by `__i3group__=group` when they are enqueued.

    `callback` (a task, with `args` and `kwargs`, or a handle of `build_chain()`) runs when all have succeeded; with no
    members, at once.
    """
    as_step: Callable[..., Step] | None = getattr(callback, "as_step", None)
    if as_step is not None:
        steps = [as_step(*(args or ()), **(kwargs or {}))]
    elif args or kwargs:
        raise ValueError("A chain as callback has its arguments already: leave out args and kwargs.")
    else:
        steps = callback.as_steps()
    if not steps:
        raise ValueError("The callback's chain has no step. Begin it with task.build_chain().")
    if total_count < 0:
        raise ValueError("total_count must be 0 or more.")
    with atomic():
        plan = Plan(SYSTEM_CLOCK.now())
        row = create_group({}, steps, at=plan.at, total_count=total_count)
        if total_count == 0:
            plan.fire(row, None)
        tries = plan.write()
    launch(tries)
    if total_count == 0:
        row.refresh_from_db()
    return row


async def _acreate(cls: type[TaskGroup], *args: Any, **kwargs: Any) -> TaskGroup:
    """`create` for coroutines."""
    return await sync_to_async(cls.create)(*args, **kwargs)


def _close(self: TaskGroup) -> None:
    """Wait for no more members: decide by those that have ended. For a group whose `total_count` was wrong."""
    launch(close_group(self.pk))
    self.refresh_from_db()


def _cancel(self: TaskGroup) -> None:
    """Cancel what has not finished: members, the chains and groups that lead to them, the callback.

    A pending group fails.
    """
    launch(cancel_group(self.pk))
    self.refresh_from_db()


async def _aclose(self: TaskGroup) -> None:
    """`close` for coroutines."""
    await sync_to_async(self.close)()


async def _acancel(self: TaskGroup) -> None:
    """`cancel` for coroutines."""
    await sync_to_async(self.cancel)()


# The model stands floors below what these need, so it is given them here; `apps` sees to it that this is imported.
for _name, _method in {
    "create": classmethod(_create),
    "acreate": classmethod(_acreate),
    "close": _close,
    "aclose": _aclose,
    "cancel": _cancel,
    "acancel": _acancel,
}.items():
    setattr(TaskGroup, _name, _method)

"""Workflows: signatures, chains and groups.

    await chain(fetch.s(url), parse.s(RESULT), store.s(RESULT)).adelay()
    await group(resize.s(path) for path in paths).then(publish_album.s(RESULT)).adelay()

A workflow is turned into steps (see `core.steps`), whose first ones are written in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, overload

from asgiref.sync import sync_to_async

from ..conf import get_config
from ..core.clock import current_clock
from ..core.steps import AsSteps, Step, Steppable, starts_with_result, wants_result
from ..engine.launch import launch, refuse_in_loop
from ..exceptions import ArgumentError
from ..models import TaskGroup
from ..registry import TaskSpec
from ..store.database import atomic
from .arguments import argument_problem, step_of
from .workflow_parts import failure_step, flat, steps_of

if TYPE_CHECKING:
    from .base import Task
    from .common import Common
    from .handles import ChainHandle

T = TypeVar("T", covariant=True)
U = TypeVar("U")
EndsWith: TypeAlias = "Signature[U] | chain[U] | Task[Any, U] | ChainHandle[U]"
"""A part of a workflow whose last step returns `U`, for type checkers."""
LONGEST_DEADLINE = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Signature(Generic[T]):
    """A task bound to arguments and options: `send.s("a@example.com")`."""

    step: Step
    _problem: str = field(default="", repr=False)
    """The reason why the arguments don't fit the task; "" if they do. They may still fit a callback of failure."""
    _failure_problem: str = field(default="", repr=False)
    """The reason why the arguments don't fit the task behind the id of a failed execution; "" if they do."""

    def as_step(self, /, *args: Any, **kwargs: Any) -> Step:
        """The step that calls the task. Raises ArgumentError if it does not take the arguments."""
        if args or kwargs:
            raise ArgumentError("A signature has its arguments already. Pass them to .s(), or pass the task itself.")
        if self._problem:
            raise ArgumentError(self._problem)
        return self.step

    def _failure_step(self) -> Step:
        """The step that calls the task with the id of a failed execution before its own arguments."""
        if self._failure_problem:
            raise ArgumentError(f"As a callback of failure: {self._failure_problem}")
        if wants_result(self.step):
            raise ArgumentError(
                "RESULT has no meaning in a callback of failure: what failed has no result. Leave it out; the first "
                "argument is the failed execution's id."
            )
        return self.step

    def as_steps(self) -> list[Step]:
        """The one step, as a part of a workflow."""
        return [self.as_step()]

    @overload
    def __or__(self, other: EndsWith[U]) -> chain[U]: ...
    @overload
    def __or__(self, other: AsSteps) -> chain[Any]: ...
    def __or__(self, other: AsSteps) -> chain[Any]:
        return chain(self, other)

    def delay(self) -> ChainHandle[T]:
        """Enqueue the call, as part of the caller's transaction."""
        refuse_in_loop("delay", "adelay")
        return _start(self.as_steps())

    async def adelay(self) -> ChainHandle[T]:
        """`delay` for coroutines."""
        return await sync_to_async(self.delay)()


def signature_of(
    spec: TaskSpec, look_up: Callable[[], Common], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Signature[Any]:
    """The task bound to these arguments: see `Task.s`. `look_up` gives what its steps have in common."""
    problem, failure_problem = argument_problem(spec, args, kwargs), argument_problem(spec, (None, *args), kwargs)
    if problem and failure_problem:
        raise ArgumentError(problem)
    return Signature(step_of(look_up(), args, kwargs), problem, failure_problem)


class chain(Generic[T]):
    """Steps that run one after the other, each when the one before has succeeded. Also `a.s() | b.s()`.

    An argument `RESULT` of a step stands for the previous step's result (after a group: the list of its members'
    results, in their order).
    """

    # A type checker knows the result of the last of up to six parts.
    @overload
    def __init__(self, last: EndsWith[T], /) -> None: ...
    @overload
    def __init__(self, a: AsSteps, last: EndsWith[T], /) -> None: ...
    @overload
    def __init__(self, a: AsSteps, b: AsSteps, last: EndsWith[T], /) -> None: ...
    @overload
    def __init__(self, a: AsSteps, b: AsSteps, c: AsSteps, last: EndsWith[T], /) -> None: ...
    @overload
    def __init__(self, a: AsSteps, b: AsSteps, c: AsSteps, d: AsSteps, last: EndsWith[T], /) -> None: ...
    @overload
    def __init__(self, a: AsSteps, b: AsSteps, c: AsSteps, d: AsSteps, e: AsSteps, last: EndsWith[T], /) -> None: ...
    @overload
    def __init__(self: chain[Any], *parts: AsSteps) -> None: ...
    def __init__(self, *parts: AsSteps) -> None:
        self._steps = [step for part in parts for step in steps_of("chain()", part)]

    def as_steps(self) -> list[Step]:
        """The steps, in the order in which they run."""
        return list(self._steps)

    @overload
    def __or__(self, other: EndsWith[U]) -> chain[U]: ...
    @overload
    def __or__(self, other: AsSteps) -> chain[Any]: ...
    def __or__(self, other: AsSteps) -> chain[Any]:
        return chain(self, other)

    def otherwise(self, failure: Steppable) -> chain[T]:
        """The same chain that calls `failure` once when a step has no try left, with that execution's id."""
        step = failure_step("otherwise()", failure)
        changed: chain[T] = chain()
        changed._steps = [_with_failure(own, step) for own in self._steps]
        return changed

    def delay(self) -> ChainHandle[T]:
        """Enqueue the chain, as part of the caller's transaction."""
        refuse_in_loop("delay", "adelay")
        return _start(self._steps)

    async def adelay(self) -> ChainHandle[T]:
        """`delay` for coroutines."""
        return await sync_to_async(self.delay)()


class group:
    """Members that run side by side, and the steps that follow when all have succeeded.

    With `wait_for_all` a failed member fails the group only after all other members have ended. `deadline`, in seconds
    or a timedelta from the group's start: a group that has not succeeded by then has failed.
    """

    def __init__(
        self,
        *members: AsSteps | Iterable[AsSteps],
        wait_for_all: bool = False,
        deadline: float | timedelta | None = None,
    ) -> None:
        self._members = [steps_of("group()", part) for part in flat(members)]
        if not all(self._members):
            raise ArgumentError("A member of the group has no step. Leave empty chains out.")
        self._settings: Step = {"wait_for_all": wait_for_all}
        if deadline is not None:
            self._settings["deadline_seconds"] = _seconds(deadline)
        self._then: list[Step] = []

    def as_steps(self) -> list[Step]:
        """The group as a step, and the steps that follow it."""
        return [{"group": {"members": self._members, **self._settings}}, *self._then]

    @overload
    def __or__(self, other: EndsWith[U]) -> chain[U]: ...
    @overload
    def __or__(self, other: AsSteps) -> chain[Any]: ...
    def __or__(self, other: AsSteps) -> chain[Any]:
        return chain(self, other)

    def then(self, callback: AsSteps) -> group:
        """The same group that runs `callback` after every member has succeeded."""
        return self._changed(then=[*self._then, *steps_of("then()", callback)])

    def otherwise(self, failure: Steppable) -> group:
        """The same group that calls `failure` once when it fails, with the id of a failed execution."""
        return self._changed(settings={**self._settings, "on_failure": failure_step("otherwise()", failure)})

    def delay(self) -> TaskGroup:
        """Enqueue all members, as part of the caller's transaction."""
        refuse_in_loop("delay", "adelay")
        handle = _start(self.as_steps())
        started = handle.task_group
        assert started is not None
        if not started.total_count or get_config().settings.force_sync:
            started.refresh_from_db()  # an empty group has succeeded; with `force_sync`, all calls have run
        vars(started)["_written"] = handle._written
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
    from ..store.workflows import Plan
    from .handles import ChainHandle
    from .results import Written
    from .travelling import take_along

    if not steps:
        raise ArgumentError("The workflow has no step. Give it at least one, such as task.s().")
    if starts_with_result(steps[0]):
        raise ArgumentError(
            "RESULT stands for what the step before returned, and the first step has none before it. Give the first "
            "step its arguments."
        )
    with atomic():
        plan = Plan(current_clock().now())
        plan.add(steps, cause=None)
        take_along(plan.calls)  # `plan.write` adds the context of a step before, and there is none
        tries = plan.write()
    launch(tries)
    written = Written()
    if "group" in steps[0]:
        return ChainHandle(None, list(steps), plan.groups[0], written)
    return ChainHandle(tries[0], list(steps[1:]), _written=written)


def _with_failure(step: Step, failure: Step) -> Step:
    """The step with `failure` as its failure callback, unless it has one of its own."""
    if "group" in step:
        return {**step, "group": {"on_failure": failure, **step["group"]}}
    return {**step, "options": {"on_failure": failure, **step.get("options", {})}}


def _seconds(deadline: object) -> float:
    seconds = deadline.total_seconds() if isinstance(deadline, timedelta) else deadline
    longest = LONGEST_DEADLINE.total_seconds()
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 < seconds <= longest:
        return float(seconds)
    raise ArgumentError(f"deadline must be a timedelta or seconds above 0, at most ten years, not {deadline!r:.80}.")

"""Calling a body so that nothing it does escapes: whatever it raises comes back as a value."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..exceptions import PermanentError, TaskTimeout

if TYPE_CHECKING:
    from .running import Run

STOPPING_SECONDS = 3.0  # for a cancelled coroutine to clean up; within what a worker's drain leaves


@dataclass(frozen=True, slots=True)
class Returned:
    """The body's return value."""

    value: Any


@dataclass(frozen=True, slots=True)
class Raised:
    """What the body raised; also SystemExit, or its own CancelledError, which would take the worker with it."""

    error: BaseException


def call(function: Callable[[], Any]) -> Returned | Raised:
    """Run a sync body to its end."""
    try:
        return _returned(function())
    except BaseException as error:
        return _raised(error)


async def acall(run: Run, function: Callable[[], Awaitable[Any]]) -> Returned | Raised:
    """Run a coroutine body to its end. Cancelled only when `run` was stopped."""
    try:
        return _returned(await function())
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and run.reason is not None:
            raise
        return _raised(error)


async def bounded(run: Run, body: Coroutine[Any, Any, Returned | Raised], timeout: float | None) -> Returned | Raised:
    """Await `body` for at most `timeout` seconds, or until `run` is stopped.

    A body that did not end by itself has raised TaskTimeout, or the reason that its run was stopped for. One that
    swallows its cancellation is left behind.
    """
    if run.reason is not None:  # before it began
        body.close()
        return Raised(run.reason)
    task = asyncio.create_task(body)
    run.body, run.stopped = task, asyncio.get_running_loop().create_future()
    ends: set[asyncio.Future[Any]] = {task, run.stopped}
    try:
        await asyncio.wait(ends, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError as error:
        run.stop(error)
        raise
    if not task.done():
        if timeout is not None:  # if it was stopped before, this is no news
            run.stop(TaskTimeout(f"The body ran longer than its timeout of {timeout:g} seconds."))
        await asyncio.wait({task}, timeout=STOPPING_SECONDS)
    return _answer(run, task)


def _answer(run: Run, task: asyncio.Task[Returned | Raised]) -> Returned | Raised:
    answer = None if not task.done() or task.cancelled() else task.result()
    if isinstance(answer, Returned) or (run.reason is None and answer is not None):
        return answer
    if run.reason is None:  # it has cancelled itself as it ended, and what it returned is gone
        return Raised(asyncio.CancelledError())
    if answer is not None:
        run.reason.__cause__ = answer.error
    return Raised(run.reason)


def _returned(value: Any) -> Returned | Raised:
    """A decorator between a task and its `async def` hides that it is one: nothing has run, which is no success."""
    if inspect.iscoroutine(value) or inspect.isgenerator(value) or inspect.isasyncgen(value):
        if not inspect.isasyncgen(value):
            value.close()
        return Raised(
            PermanentError(
                f"The body returned {value!r}, so what is in it has not run. Await it in the body, or make the "
                "decorators below @task return a coroutine function for one."
            )
        )
    return Returned(value)


def _raised(error: BaseException) -> Raised:
    """Without our own frame, which would only hide theirs."""
    return Raised(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))

"""Calls a body so that no exception escapes: an exception is returned as a value."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.record import record
from ..exceptions import PermanentError, TaskTimeout
from .exits import hold_responsible
from .forked import end_child
from .stacks import stack_of_task

if TYPE_CHECKING:
    from .lease_renewal import Run

_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}
"""Lets a task begin where it is made and run to its first wait: a body without one needs no turn of the loop."""

STOPPING_SECONDS = 3.0  # for a cancelled coroutine to clean up; less than a worker's HAND_BACK_SECONDS


@record
class Returned:
    """The body's return value."""

    value: Any


@dataclass(frozen=True, slots=True)
class Raised:
    """The exception that the body raised, including SystemExit and CancelledError, which would end the worker."""

    error: BaseException


def call(function: Callable[[], Any]) -> Returned | Raised:
    """Run a sync body to its end. A child that the body forks ends with it."""
    here = os.getpid()
    try:
        value = function()
    except BaseException as error:
        end_child(here, error)
        return _raised(error)
    end_child(here, None)
    return _returned(value)


async def acall(run: Run, function: Callable[[], Awaitable[Any]]) -> Returned | Raised:
    """Run a coroutine body to its end. CancelledError passes through only if `run` was stopped."""
    hold_responsible(run)
    task = asyncio.current_task()
    assert task is not None
    run.stack = partial(stack_of_task, task, threading.get_ident())
    here = os.getpid()
    try:
        value = await function()
    except BaseException as error:
        end_child(here, error)
        if isinstance(error, asyncio.CancelledError) and run.reason is not None:
            raise
        return _raised(error)
    end_child(here, None)
    return _returned(value)


async def bounded(
    run: Run, body: Coroutine[Any, Any, Returned | Raised], timeout: float | None, patience: float | None = None
) -> Returned | Raised:
    """Await `body`, in a task of its own, for at most `timeout` seconds or until `run` is stopped.

    The answer for a body that did not end by itself is TaskTimeout, or the reason why its run was stopped. A coroutine
    that does not end when it is cancelled is no longer waited for after `patience` seconds (STOPPING_SECONDS).
    """
    if run.reason is not None:  # before it began
        body.close()
        return Raised(run.reason)
    task = asyncio.Task(body, loop=asyncio.get_running_loop(), **_EAGER)
    if not task.done():
        ending = BodyEnding(run, task.cancel, task, STOPPING_SECONDS if patience is None else patience)
        task.add_done_callback(ending.come)
        if timeout is not None:
            ending.limit(timeout)
        if run.is_stopped:  # by what the body did in its first step
            ending.hurry()
        await ending.wait()
    return answer_of(run, None if not task.done() or task.cancelled() else task.result())


class BodyEnding:
    """The end of a body: by itself, by its timeout, or because its run was stopped. Used on its event loop only."""

    def __init__(
        self,
        run: Run,
        halt: Callable[[], object],
        task: asyncio.Task[Any] | None = None,
        patience: float = 0,
    ) -> None:
        """`halt` asks the body to end. Only a task is waited for after that, for `patience` seconds."""
        self.run = run
        self._halt = halt
        self._task = task
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._come = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        run.ending = self

    @property
    def has_come(self) -> bool:
        return self._come.done() or (self._task is not None and self._task.done())

    def come(self, _: object = None) -> None:
        """Note that the body has ended, or that it is no longer waited for."""
        if not self._come.done():
            self._come.set_result(None)

    def limit(self, timeout: float) -> None:
        """Stop the run `timeout` seconds from now."""
        self._timer = self._loop.call_later(timeout, self._time_out, timeout)

    def hurry(self) -> None:
        """Ask the body to end, because its run was stopped."""
        self._halt()
        if self._task is None:
            self.come()
        elif not self._task.done():
            self._loop.call_later(self._patience, self.come)

    async def wait(self) -> None:
        """Wait for the end."""
        try:
            await self._come
        except asyncio.CancelledError as error:
            self.run.stop(error)
            raise
        finally:
            self._halt = _let_be  # the body's own `halt` refers to this, and would wait for the garbage collector
            if self._timer is not None:
                self._timer.cancel()

    def _time_out(self, timeout: float) -> None:
        if not self.has_come:
            self.run.stop(TaskTimeout(f"The body ran longer than its timeout of {timeout:g} seconds."))


def _let_be() -> None:
    """What is left to halt of a body that has ended, or is no longer waited for."""


def is_cancelling() -> bool:
    """Whether the current asyncio task is being cancelled. A CancelledError can also come from elsewhere."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


def answer_of(run: Run, answer: Returned | Raised | None) -> Returned | Raised:
    """Return what a body came to, given its own answer: None if it was stopped before it gave one."""
    if isinstance(answer, Returned) or (run.reason is None and answer is not None):
        return answer
    if run.reason is None:  # it cancelled itself as it ended: its return value is lost
        return Raised(asyncio.CancelledError())
    if answer is not None and answer.error is not run.reason:
        run.reason.__cause__ = answer.error
    return Raised(run.reason)


def _returned(value: Any) -> Returned | Raised:
    """Return the value, or an error if it is a coroutine or a generator, whose code has not run.

    This happens when a decorator below @task hides that the function is an `async def`.
    """
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
    """Return the error without the frame of i3tasks, so that its traceback begins in the body."""
    try:
        return Raised(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))
    except BaseException:  # its class has a traceback of its own
        return Raised(error)

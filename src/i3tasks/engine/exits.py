"""Handles SystemExit and KeyboardInterrupt that are raised in child tasks and callbacks of a body.

asyncio lets both out of its event loop, from any task. That would end the worker or the web process
with all other runs in it. This module lets them end only the run that they belong to.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from ..exceptions import PermanentError
from ..registry import concealer_of
from ..telemetry import emit
from .forked import end_child, own_loop

if TYPE_CHECKING:
    from .lease_renewal import Run

EXITS = (SystemExit, KeyboardInterrupt)

_run: contextvars.ContextVar[Run | None] = contextvars.ContextVar("i3tasks_run", default=None)
_guarded: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


class Loop(asyncio.SelectorEventLoop):
    """The event loop of a worker: an exit that belongs to no known run ends neither the loop nor the process."""

    _is_stopping = False

    def stop(self) -> None:
        self._is_stopping = True
        super().stop()

    def run_forever(self) -> None:
        self._is_stopping = False
        while True:
            try:
                return super().run_forever()
            except EXITS as error:
                contain(None, error)
                if self._is_stopping:  # asyncio forgets the request to stop when the loop ends by an error
                    return None


def hold_responsible(run: Run) -> None:
    """Let exits end `run` from now on: exits in this context, and in the tasks and callbacks that it starts."""
    _run.set(run)
    loop = asyncio.get_running_loop()
    own_loop(loop)
    if loop not in _guarded:
        _guarded.add(loop)
        _guard(loop)


@contextmanager
def responsible(run: Run) -> Iterator[None]:
    """`hold_responsible` for as long as the block lasts, in a context that goes on after the run."""
    before = _run.get()
    hold_responsible(run)
    try:
        yield
    finally:
        _run.set(before)


def contain(run: Run | None, error: BaseException) -> None:
    """Make an exit the failure of the run that it belongs to, and report it."""
    facts = {} if run is None else run.claimed.facts
    conceal = None if run is None else concealer_of(*run.claimed.call)
    if run is not None:
        run.stop(error)
    try:
        said = repr(error)
    except BaseException:  # of a class of the project's
        said = type(error).__name__
    emit("exit_contained", **facts, error=said if conceal is None else conceal(said))


def _guard(loop: Any) -> None:
    before: Any = loop.get_task_factory()

    def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        run = _run_in(options.get("context"))
        if run is not None or type(coroutine).__name__ == "async_generator_athrow":  # aclose() of a dropped generator
            coroutine = _Contained(coroutine, run)
        return asyncio.Task(coroutine, loop=loop, **options) if before is None else before(loop, coroutine, **options)

    loop.set_task_factory(make_task)
    readers = ("_add_reader", "_add_writer") if hasattr(loop, "_add_reader") else ("add_reader", "add_writer")
    for position, names in enumerate((("call_soon", "call_soon_threadsafe"), ("call_later", "call_at", *readers))):
        for name in names:
            setattr(loop, name, _with_contained_callback(getattr(loop, name), position))
    loop.stop = _only_by_its_owner(loop.stop)


def _only_by_its_owner(stop: Callable[[], None]) -> Callable[[], None]:
    def stop_unless_asked_by_a_body() -> None:
        run = _run.get()
        if run is None:
            stop()
        else:
            contain(run, PermanentError("The body called stop() of the event loop, which other bodies share."))

    return stop_unless_asked_by_a_body


def _with_contained_callback(schedule: Callable[..., Any], position: int) -> Callable[..., Any]:
    def scheduled(*args: Any, **options: Any) -> Any:
        run = _run_in(options.get("context"))
        if run is not None and "callback" in options:
            options["callback"] = partial(_call, run, options["callback"])
        # The steps of a task need no wrapper: its coroutine is a _Contained.
        elif run is not None and not isinstance(getattr(args[position], "__self__", None), asyncio.Task):
            args = (*args[:position], _call, run, *args[position:])
        return schedule(*args, **options)

    return scheduled


def _call(run: Run, callback: Callable[..., Any], *args: Any) -> None:
    here = os.getpid()
    try:
        callback(*args)
    except BaseException as error:
        end_child(here, error)
        if not isinstance(error, EXITS):
            raise
        contain(run, error)


def _run_in(context: contextvars.Context | None) -> Run | None:
    return _run.get() if context is None else context.get(_run)


class _Contained(Coroutine[Any, Any, Any]):
    """The coroutine of a child task. If it raises an exit, the task counts as cancelled and the run fails."""

    def __init__(self, coroutine: Any, run: Run | None) -> None:
        self._coroutine = coroutine
        self._of_run = run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)  # its frame and name, for tools that inspect tasks

    def __await__(self) -> Any:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        return self._step(self._coroutine.send, value)

    def throw(self, *error: Any) -> Any:
        return self._step(self._coroutine.throw, *error)

    def close(self) -> None:
        self._coroutine.close()

    def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        here = os.getpid()
        try:
            return step(*args)
        except BaseException as error:
            end_child(here, None if isinstance(error, StopIteration) else error)
            if not isinstance(error, EXITS):
                raise
            contain(self._of_run, error)
            raise asyncio.CancelledError from error

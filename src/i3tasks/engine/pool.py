"""Where bodies run: coroutines in the event loop, sync functions in threads, each kind within its limit."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Protocol

import anyio
from asgiref.sync import ThreadSensitiveContext

from ..registry import TaskSpec
from .bodies import Raised, Returned, acall, bounded
from .connections import call_apart
from .lanes import Lane, Lanes, LazyLane
from .processes import body_of, run_in_child
from .running import Run


class PoolClosing(Exception):
    """The worker is ending and begins nothing new."""


class Pool(Protocol):
    """Runs bodies. `slot` is entered before the lease is taken, so that what waits there is not called running."""

    def slot(self, spec: TaskSpec | None) -> AbstractAsyncContextManager[None]:
        """Wait for room for a body of that task; None: of a task that this process does not know."""
        ...

    async def run(
        self, spec: TaskSpec, run: Run, function: Callable[[], Any], timeout: float | None
    ) -> Returned | Raised:
        """What the body came to. One that was stopped has raised the reason for it, such as TaskTimeout."""
        ...


class WorkerPool:
    """The pool of a worker or a web process: `concurrency` bodies, of which `threads` are sync functions."""

    def __init__(self, *, concurrency: int, threads: int, database_lanes: int) -> None:
        self._slots = anyio.CapacityLimiter(concurrency)
        self._threads = asyncio.Semaphore(threads)
        self._processes = anyio.CapacityLimiter(threads)  # so that a slot is all that a process waits for
        self._waiting: set[anyio.CancelScope] = set()
        self._closing = False
        self._overdue = 0  # bodies that still have a thread though their slot's owner has gone on
        self._sync_lanes = Lanes("i3tasks-sync", threads)
        self._coroutine_lanes = Lanes("i3tasks-lane", database_lanes)

    @asynccontextmanager
    async def slot(self, spec: TaskSpec | None) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            with anyio.CancelScope() as waiting:
                self._waiting.add(waiting)
                try:
                    if spec is not None and not spec.is_coroutine:
                        await stack.enter_async_context(self._thread())
                    await stack.enter_async_context(self._slots)
                finally:
                    self._waiting.discard(waiting)
            if waiting.cancel_called or self._closing:
                raise PoolClosing
            yield

    def stop_admitting(self) -> None:
        """Whoever waits for a slot, now or later, gets PoolClosing instead."""
        self._closing = True
        for waiting in list(self._waiting):
            waiting.cancel()

    async def run(
        self, spec: TaskSpec, run: Run, function: Callable[[], Any], timeout: float | None
    ) -> Returned | Raised:
        if spec.is_coroutine:
            body = self._in_loop(run, function)
        elif spec.options.isolation == "process":
            body = run_in_child(body_of(spec, run), self._processes)
        else:
            body = self._in_thread(function)
        return await bounded(run, body, timeout)

    def close(self) -> None:
        """End the threads, each after the body that it is in."""
        self._sync_lanes.close()
        self._coroutine_lanes.close()

    @asynccontextmanager
    async def _thread(self) -> AsyncIterator[None]:
        await self._threads.acquire()
        try:
            yield
        finally:
            if self._overdue:
                self._overdue -= 1  # the thread is still taken: `_freed` will release it
            else:
                self._threads.release()

    async def _in_loop(self, run: Run, function: Callable[[], Any]) -> Returned | Raised:
        lane = LazyLane(self._coroutine_lanes)
        try:
            async with ThreadSensitiveContext(executor=lane):
                return await acall(run, function)
        finally:
            lane.release()

    async def _in_thread(self, function: Callable[[], Any]) -> Returned | Raised:
        lane = self._sync_lanes.acquire()
        context = contextvars.copy_context()
        future = lane.submit(context.run, call_apart, function)
        try:
            return await asyncio.wrap_future(future)
        finally:
            if future.done():
                self._sync_lanes.release(lane)
            else:
                self._await_overdue(lane, future)

    def _await_overdue(self, lane: Lane, future: Future[Any]) -> None:
        """A thread can't be killed: until this one is free again, there is one less."""
        loop = asyncio.get_running_loop()
        self._overdue += 1

        def ended(_: Future[Any]) -> None:
            with suppress(RuntimeError):  # the loop is closed, and the pool with it
                loop.call_soon_threadsafe(self._freed, lane)

        future.add_done_callback(ended)

    def _freed(self, lane: Lane) -> None:
        self._sync_lanes.release(lane)
        self._threads.release()

"""The long-lived tasks of a worker. Each carries out one try after the other, from its claim to its answer."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

Job = Callable[[], Coroutine[Any, Any, None]]


class Tasks(Protocol):
    """What the loops' tasks belong to, such as anyio's TaskGroup."""

    def start_soon(self, function: Job, /) -> object: ...


class TryLoops:
    """Up to `most` tasks, created when needed. A job should raise nothing but a cancellation.

    They run in copies of `context`: what is current where a job is given belongs to another try.
    """

    def __init__(self, tasks: Tasks, most: int, context: contextvars.Context) -> None:
        self._tasks = tasks
        self._context = context
        self._left = most
        self._ready: deque[Job] = deque()
        self._idle: list[asyncio.Future[None]] = []

    def give(self, job: Job) -> None:
        """Let a loop take the job: an idle one, a new one, or the first that is done with another."""
        self._ready.append(job)
        self._call_a_loop()

    def _call_a_loop(self) -> None:
        while self._idle:
            woken = self._idle.pop()
            if not woken.done():  # else its task was cancelled
                woken.set_result(None)
                return
        if self._left:
            self._left -= 1
            self._context.run(self._tasks.start_soon, self._loop)

    async def _loop(self) -> None:
        context = contextvars.copy_context()
        while True:
            while self._ready:
                await self._ready.popleft()()
                if contextvars.copy_context() != context:
                    return self._replace()  # a listener to events has set something, which the next try must not see
            woken = asyncio.get_running_loop().create_future()
            self._idle.append(woken)
            await woken

    def _replace(self) -> None:
        self._left += 1
        if self._ready:
            self._call_a_loop()

"""The long-lived tasks of a worker. Each carries out one try after the other, from its claim to its answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

Job = Callable[[], Coroutine[Any, Any, None]]


class Tasks(Protocol):
    """What the loops' tasks belong to, such as anyio's TaskGroup."""

    def start_soon(self, function: Job, /) -> object: ...


class TryLoops:
    """Up to `most` tasks, created when needed. A job should raise nothing but a cancellation."""

    def __init__(self, tasks: Tasks, most: int) -> None:
        self._tasks = tasks
        self._left = most
        self._ready: deque[Job] = deque()
        self._idle: list[asyncio.Future[None]] = []

    def give(self, job: Job) -> None:
        """Let a loop take the job: an idle one, a new one, or the first that is done with another."""
        self._ready.append(job)
        while self._idle:
            woken = self._idle.pop()
            if not woken.done():  # else its task was cancelled
                woken.set_result(None)
                return
        if self._left:
            self._left -= 1
            self._tasks.start_soon(self._loop)

    async def _loop(self) -> None:
        while True:
            while self._ready:
                await self._ready.popleft()()
            woken = asyncio.get_running_loop().create_future()
            self._idle.append(woken)
            await woken

"""taskiq with Redis lists, results in Redis, one process of 100 coroutines. No Django."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import cached_property
from typing import Any

from ..harness.contestant import Contestant as Base

AT_ONCE = 50


class Contestant(Base):
    requires = ("taskiq", "taskiq-redis", "django<6.2")
    services = ("redis",)
    redis_databases = (4, 5)
    sizes = {"drain": 5000, "io": 1000, "enqueue": 5000}
    tasks = "taskiq"
    bodies = ("async",)

    def described(self) -> str:
        return "taskiq worker --workers 1 --max-async-tasks 100; broker and results in Redis"

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(self.functions.broker.startup())
        return loop

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._loop.run_until_complete(coroutine)

    def enqueue_one(self, index: int, kind: str) -> None:
        self._run(self.functions.TASKS[kind].kiq(index))

    def fill(self, count: int, kind: str, start: int = 0) -> None:
        self._run(self._at_once(count, kind, start))

    def ways(self) -> dict[str, Callable[[int, str], Any]]:
        return {f"kiq, {AT_ONCE} at once": self.fill}

    async def _at_once(self, count: int, kind: str, start: int = 0) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(index: int) -> None:
            async with gate:
                await self.functions.TASKS[kind].kiq(index)

        await asyncio.gather(*(one(index) for index in range(start, start + count)))

    def worker_command(self, kind: str) -> list[str]:
        limits = ["--workers", "1", "--max-async-tasks", "100", "--max-prefetch", "100", "--log-level", "WARNING"]
        return [self.program("taskiq"), "worker", "tests.benchmarks.contestants.tasks.taskiq:broker", *limits]

    def completed(self) -> int:
        return int(self.redis(5).dbsize())

    def queued(self) -> int:
        return int(self.redis(4).llen("bench"))

"""Virtual time: one queue of events for all processes, and an event loop that stands on it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from asyncio import events
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from datetime import UTC, datetime, timedelta
from typing import Any

from i3tasks.core.clock import Clock

START = datetime(2030, 1, 1, tzinfo=UTC)


class Timeline:
    """Events in the order of their virtual time; those of the same instant in an order that the seed decides."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.seconds = 0.0
        self._heap: list[tuple[float, float, int, Callable[[], Any]]] = []
        self._count = itertools.count()
        self.steps = 0

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def clock(self, skew: timedelta = timedelta(0)) -> Clock:
        """A process's clock, which differs by `skew` from the database's."""
        return Clock(
            now=lambda: self.now + skew,
            monotonic=lambda: self.seconds,
            random=self.chance.random,
            random_bytes=self.chance.randbytes,
            database_now=lambda: self.now,
        )

    def after(self, seconds: float, event: Callable[[], Any], *, in_order: bool = False) -> None:
        """Let `event` happen. `in_order`: after everything else that was put for that instant in order."""
        rank = 0.0 if in_order else self.chance.random()
        heapq.heappush(self._heap, (self.seconds + max(seconds, 0), rank, next(self._count), event))

    def step(self) -> bool:
        """Let the next event happen; False when there is none."""
        if not self._heap:
            return False
        self.seconds, _, _, event = heapq.heappop(self._heap)
        self.steps += 1
        event()
        return True


class Loop(asyncio.AbstractEventLoop):
    """As much of an event loop as futures, tasks and timers need. Killed, it runs nothing any more."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._ready: list[asyncio.Handle] = []
        self._tasks: dict[asyncio.Task[Any], Context] = {}  # in their order
        self._task_factory: Any = None
        self.errors: list[dict[str, Any]] = []
        self.is_dead = False

    def run_ready(self) -> None:
        """Run what is ready, and what that makes ready."""
        events._set_running_loop(self)
        try:
            while self._ready and not self.is_dead:
                handle = self._ready.pop(0)
                if not handle.cancelled():
                    handle._run()
        finally:
            events._set_running_loop(None)

    def kill(self) -> None:
        self.is_dead = True
        events._set_running_loop(None)  # it may be in the middle of a callback
        self._ready.clear()
        for task, context in list(self._tasks.items()):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with suppress(RuntimeError):  # it was awaiting something while it was closed
                context.run(task.get_coro().close)  # type: ignore[union-attr]

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.is_dead:
            self._ready.append(handle)
            if len(self._ready) == 1:
                self._timeline.after(0, self.run_ready, in_order=True)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(self.time() + delay, callback, args, self, context)
        self._timeline.after(delay, lambda: handle.cancelled() or self.call_soon(_run, handle))
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_later(when - self.time(), callback, *args, context=context)

    def time(self) -> float:
        return self._timeline.seconds

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **_: Any) -> asyncio.Task[Any]:
        make: Any = self._task_factory or (lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))
        context = copy_context()
        task: asyncio.Task[Any] = make(self, coro, context=context)
        self._tasks[task] = context
        task.add_done_callback(lambda _: self._tasks.pop(task, None))
        return task

    def get_task_factory(self) -> Any:
        return self._task_factory

    def set_task_factory(self, factory: Any) -> None:
        self._task_factory = factory

    def _timer_handle_cancelled(self, handle: Any) -> None:
        """Nothing to do: a cancelled timer does not run."""

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.is_dead

    def is_closed(self) -> bool:
        return self.is_dead

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.is_dead:
            self.errors.append(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)


def _run(handle: asyncio.TimerHandle) -> None:
    if not handle.cancelled():
        handle._run()

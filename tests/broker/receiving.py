"""What tests of the receiver share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from i3tasks.broker.receiver import Incoming, Receiver
from tests.broker.conftest import SECONDS, Broker, eventually


class Deliveries:
    """Collects what is delivered, and lets a test wait for it."""

    def __init__(self, answer: Callable[[Incoming], None] = lambda incoming: None) -> None:
        self.all: list[Incoming] = []
        self._answer = answer
        self._changed = asyncio.Condition()
        self._arrived = asyncio.Event()

    def __call__(self, incoming: Incoming) -> None:
        self.all.append(incoming)
        self._answer(incoming)
        self._arrived.set()

    @property
    def data(self) -> list[bytes]:
        return [incoming.delivery.data for incoming in self.all]

    async def until(self, condition: Callable[[], bool], seconds: float = SECONDS) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self._arrived.clear()
                await self._arrived.wait()

    async def count(self, count: int) -> list[Incoming]:
        await self.until(lambda: len(self.all) >= count)
        return self.all


@asynccontextmanager
async def receiving(
    broker: Broker, deliver: Callable[[Incoming], None], *, max_messages: int = 100, drain: float = 5.0
) -> AsyncIterator[Receiver]:
    """A running receiver of the default queue, drained at the end."""
    receiver = Receiver(broker.queue, max_messages=max_messages)
    running = asyncio.ensure_future(receiver.run(deliver))
    try:
        yield receiver
    finally:
        receiver.stop()
        await asyncio.wait_for(running, SECONDS)
        await receiver.drain(drain)


async def no_library_threads() -> None:
    """Wait until the threads of Google's library are gone."""
    await asyncio.to_thread(
        eventually, lambda: not any(map(_is_library_thread, threading.enumerate())), "the library's threads end"
    )


def _is_library_thread(thread: threading.Thread) -> bool:
    wanted = ("Thread-CallbackRequestDispatcher", "Thread-ConsumeBidirectionalStream", "Thread-LeaseMaintainer")
    return thread.name.startswith((*wanted, "Thread-Heartbeater", "Thread-RegularStreamShutdown", "Thread-OnRpc"))

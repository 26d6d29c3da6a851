"""What tests of the engine and of the doors stand on: a broker that only notes, a running worker, and polling."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from i3tasks.broker.deliveries import Delivery
from i3tasks.broker.outgoing import MakeMessage, Outgoing
from i3tasks.conf import get_config
from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.envelope import Envelope
from i3tasks.engine.worker import Worker
from i3tasks.models import TaskExecution, TaskExecutionTry


def made(message: Outgoing | MakeMessage) -> Outgoing:
    """The message, as the publisher's thread makes it."""
    return message if isinstance(message, Outgoing) else message()


class NotingPublisher:
    """Takes every message and sends none. Confirms nothing unless told to."""

    is_available = True

    def __init__(self) -> None:
        self.messages: list[Outgoing] = []
        self.refusing: set[str] = set()

    def publish(self, *messages: Outgoing | MakeMessage) -> bool:
        self.messages += map(made, messages)
        return True

    def flush(self, timeout: float) -> bool:
        return True

    def is_refused_by(self, topic: str) -> bool:
        return topic in self.refusing

    @property
    def try_ids(self) -> list[int]:
        return [Envelope.from_bytes(message.data).task_execution_try_id for message in self.messages]


def delivery_of(task_try: TaskExecutionTry, *, published: datetime | None = None, **changes: Any) -> Delivery:
    """The message of a try."""
    envelope = Envelope(task_try.task_execution_id, task_try.pk, "tests.shop.tasks", "add")
    return delivery(envelope.to_bytes(), published=published, **changes)


def delivery(data: bytes, *, published: datetime | None = None, **attributes: str) -> Delivery:
    """A message with that data."""
    return Delivery(data, attributes, "m-1", published or SYSTEM_CLOCK.now(), None, "default")


@asynccontextmanager
async def working(concurrency: int = 50, threads: int = 4, streams: int = 1) -> AsyncIterator[Worker]:
    """A worker on this loop while the block lasts."""
    worker = Worker(get_config().worker_queues, concurrency=concurrency, threads=threads, streams=streams)
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await running


async def afinished(count: int, seconds: float = 30) -> None:
    """Wait until that many executions have ended."""
    async with asyncio.timeout(seconds):
        while await TaskExecution.objects.filter(outcome__isnull=False).acount() < count:
            await asyncio.sleep(0.02)


async def auntil(holds: Callable[[], Any], seconds: float = 15) -> None:
    """Wait until a condition in memory holds."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


def until(holds: Callable[[], Any], seconds: float = 30, what: Callable[[], Any] = str) -> Any:
    """Wait until `holds()` is true, and give it back. `what` describes what there is when it never is."""
    deadline = time.monotonic() + seconds
    while not (answer := holds()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain; {what()}"
        time.sleep(0.02)
    return answer

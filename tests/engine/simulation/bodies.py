"""What runs in a simulation: bodies that take time, fail, snooze and die, and the ledger of what they did."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from i3tasks import Retry, task

from .process import Process

MANY = 1000  # retries, so that only a task that wants to fails


class Wanted(Exception):
    """A failure that the task is meant to have."""


@dataclass
class Ledger:
    """What bodies did: they run in this process, so it survives every simulated death."""

    begun: Counter[int] = field(default_factory=Counter)  # by try
    begun_execution: Counter[int] = field(default_factory=Counter)
    snoozed: dict[int, timedelta] = field(default_factory=dict)  # by try
    chance: random.Random = field(default_factory=random.Random)
    haste: float = 6  # the higher, the more of the bodies are short

    def begin(self, metadata: Any) -> None:
        self.begun[metadata.task_execution_try_id] += 1
        self.begun_execution[metadata.task_execution_id] += 1


ledger = Ledger()


async def _take_time() -> None:
    """Mostly short, at times longer than a lease."""
    seconds = ledger.chance.random() ** ledger.haste * 20
    if seconds > 0.01:
        await asyncio.sleep(seconds)


@task(bind=True, max_retries=MANY)
async def work(value: Any = None, task_metadata: Any = None) -> Any:
    ledger.begin(task_metadata)
    await _take_time()
    return value


@task(bind=True, max_retries=MANY)
async def stumble(times: int, task_metadata: Any = None) -> int:
    """Fails that many times."""
    ledger.begin(task_metadata)
    await _take_time()
    if task_metadata.try_number <= times:
        raise Wanted
    return times


@task(bind=True, max_retries=MANY)
async def snooze(times: int, task_metadata: Any = None) -> int:
    """Asks that many times to be woken later."""
    ledger.begin(task_metadata)
    await _take_time()
    if task_metadata.try_number <= times:
        delay = timedelta(seconds=ledger.chance.choice([0, ledger.chance.uniform(0, 5)]))
        ledger.snoozed[task_metadata.task_execution_try_id] = delay
        raise Retry(delay=delay)
    return times


@task(bind=True, max_retries=MANY, timeout=1)
async def hurry(task_metadata: Any = None) -> None:
    """Is late at times."""
    ledger.begin(task_metadata)
    await asyncio.sleep(ledger.chance.uniform(0, 1.5))


@task(bind=True, max_retries=0)
async def fail(task_metadata: Any = None) -> None:
    ledger.begin(task_metadata)
    await _take_time()
    raise Wanted


@task(bind=True, max_retries=MANY)
async def mourn(failed_execution_id: int, tag: str, task_metadata: Any = None) -> str:
    """Follows a failure."""
    ledger.begin(task_metadata)
    return tag


@task(bind=True, max_retries=MANY, unique=True)
async def lone(number: int, task_metadata: Any = None) -> int:
    """There is one of each number at a time."""
    ledger.begin(task_metadata)
    await _take_time()
    return number


@task(bind=True)
async def take_along(task_metadata: Any = None) -> None:
    """Takes its process with it, and whoever runs beside it there."""
    ledger.begin(task_metadata)
    process = Process.current
    process.after(ledger.chance.uniform(0, 1), process.kill)
    await asyncio.sleep(1000)


@task(bind=True)
async def bystand(task_metadata: Any = None) -> None:
    """Takes long enough for its neighbour to take it along."""
    ledger.begin(task_metadata)
    await asyncio.sleep(ledger.chance.uniform(0, 4))


def full_name(body: Callable[..., Any]) -> str:
    """As a row names an error class."""
    return f"{body.__module__}.{body.__qualname__}"

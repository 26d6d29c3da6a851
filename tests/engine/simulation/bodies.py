"""What runs in a simulation: bodies that take time, fail, snooze, leave things behind and die; and their ledger."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import connection, transaction

from i3tasks import PermanentError, Retry, task
from i3tasks.models import TaskExecution, TaskExecutionTry

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
async def snooze_together(times: int, task_metadata: Any = None) -> int:
    """Asks for it beside a failure, in a group in a group."""
    ledger.begin(task_metadata)
    if task_metadata.try_number <= times:
        delay = timedelta(seconds=ledger.chance.uniform(0.1, 5))
        ledger.snoozed[task_metadata.task_execution_try_id] = delay
        raise ExceptionGroup("both", [Wanted(), ExceptionGroup("inner", [Retry(delay=delay), Retry()])])
    return times


@task(bind=True, max_retries=MANY)
async def fail_together(task_metadata: Any = None) -> None:
    """One of its errors is final."""
    ledger.begin(task_metadata)
    await _take_time()
    raise ExceptionGroup("all", [Retry(delay=1), ExceptionGroup("inner", [Wanted(), PermanentError("for good")])])


@task(bind=True, max_retries=MANY)
async def leave(times: int, task_metadata: Any = None) -> int:
    """Raises SystemExit that many times, in a child task or in a callback."""
    ledger.begin(task_metadata)
    if task_metadata.try_number <= times:
        if ledger.chance.random() < 0.5:
            asyncio.get_running_loop().call_soon(sys.exit, 3)
            await asyncio.sleep(1000)
        await asyncio.gather(_exit(), asyncio.sleep(1000))
    await _take_time()
    return times


async def _exit() -> None:
    await asyncio.sleep(0)
    sys.exit("in a child task")


@task(bind=True, max_retries=MANY)
def abandon(times: int, task_metadata: Any = None) -> int:
    """Leaves a transaction open that many times, in which it has ended everything as failed."""
    ledger.begin(task_metadata)
    if task_metadata.try_number <= times:
        ledger.chance.choice([_begin_atomic, _turn_off_autocommit, _begin])()
        TaskExecution.objects.update(outcome="failed")
        TaskExecutionTry.objects.update(is_completed=True, claim_token=None, dispatch_at=None)
    return times


def _begin_atomic() -> None:
    transaction.atomic().__enter__()


def _turn_off_autocommit() -> None:
    transaction.set_autocommit(False)


def _begin() -> None:
    connection.cursor().execute("BEGIN")


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
    """Takes its process with it, and all that runs beside it there."""
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

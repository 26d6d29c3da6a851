"""The tasks of i3tasks, and ways to enqueue them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from i3tasks import group, task
from i3tasks.models import TaskExecution, TaskExecutionTry

from ...harness import bodies

AT_ONCE = 1000


@task
def noop_sync(index: int) -> int:
    return bodies.noop_sync(index)


@task
async def noop_async(index: int) -> int:
    return await bodies.noop_async(index)


@task
def io_sync(index: int) -> int:
    return bodies.io_sync(index)


@task
async def io_async(index: int) -> int:
    return await bodies.io_async(index)


TASKS: dict[str, Any] = {item.__name__: item for item in (noop_sync, noop_async, io_sync, io_async)}


def delay_many(count: int, kind: str, start: int = 0) -> None:
    TASKS[kind].delay_many([(index,) for index in range(start, start + count)])


def delay_many_in_parts(count: int, kind: str) -> None:
    """`AT_ONCE` calls at a time: the yardstick of `adelay` at once, with publishing under way as well."""
    for start in range(0, count, AT_ONCE):
        delay_many(min(AT_ONCE, count - start), kind, start)


def in_a_group(count: int, kind: str) -> None:
    group(TASKS[kind].s(index) for index in range(count)).delay()


def by_plain_inserts(count: int, kind: str) -> None:
    """What `delay` writes, by hand: the yardstick of one by one."""
    for index in range(count):
        with transaction.atomic():
            execution = TaskExecution.objects.create(
                task_path=__name__, task_name=kind, task_args=[index], task_kwargs={}, queue_name="queue"
            )
            TaskExecutionTry.objects.create(
                task_execution=execution, publish_count=1, dispatch_at=timezone.now() + timedelta(hours=1)
            )


async def adelay_one_by_one(count: int, kind: str) -> None:
    for index in range(count):
        await TASKS[kind].adelay(index)


async def adelay_at_once(count: int, kind: str) -> None:
    for start in range(0, count, AT_ONCE):
        await asyncio.gather(*(TASKS[kind].adelay(index) for index in range(start, min(start + AT_ONCE, count))))

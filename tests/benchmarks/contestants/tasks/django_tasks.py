"""Tasks of Django's own interface, for all contestants that are backends of it."""

from typing import Any

from django.tasks import task

from ...harness import bodies


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


TASKS: dict[str, Any] = {"noop_sync": noop_sync, "noop_async": noop_async, "io_sync": io_sync, "io_async": io_async}


async def aenqueue(count: int, kind: str) -> None:
    for index in range(count):
        await TASKS[kind].aenqueue(index)

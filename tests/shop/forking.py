"""Tasks whose bodies fork, from each thread that bodies run in. Not discovered, like hostile.py."""

import asyncio
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async

from i3tasks import task
from tests.shop.models import Order
from tests.shop.tasks import pushed

CODES = {"exit": 7, "sys.exit": 8, "raise": 1, "return": 0, "use": 7, "enqueue": 0, "terminate": -15}
"""The exit code of a child that does it."""


def in_child(way: str) -> None:
    if way == "exit":
        os._exit(7)
    if way == "sys.exit":
        sys.exit(8)
    if way == "raise":
        raise ValueError("in the child")
    if way == "use":
        Order.objects.create(name=f"child {os.getpid()}")
        os._exit(7)


def fork(way: str) -> int | list[bool]:
    """Fork, and wait for the child. Those that return go on in the body, and end with it."""
    assert Order.objects.count() >= 0, "a connection is open"
    if way == "pool":
        with multiprocessing.get_context("fork").Pool(2) as pool:
            return pool.map(uses_rows, [1, 2])
    if way in ("enqueue", "terminate"):
        return _start(enqueue if way == "enqueue" else time.sleep, way)
    pid = os.fork()
    if not pid:
        in_child(way)
        return 99
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert Order.objects.count() >= 0, "it is this process's own"
    return code


def _start(target: Callable[..., Any], way: str) -> int:
    process = multiprocessing.get_context("fork").Process(target=target, args=(600,))
    process.start()
    if way == "terminate":
        process.terminate()
    process.join()
    return process.exitcode if process.exitcode is not None else 99


def uses_rows(_: int) -> bool:
    return Order.objects.count() >= 0


def enqueue(_: int) -> None:
    pushed.delay("from a child")


@task(max_retries=0, timeout=60)
def in_thread(way: str) -> Any:
    return fork(way)


@task(max_retries=0, timeout=60, isolation="process")
def in_process(way: str) -> Any:
    return fork(way)


@task(max_retries=0, timeout=60)
async def in_lane(way: str) -> Any:
    return await sync_to_async(fork)(way)


@task(max_retries=0, timeout=60)
async def in_loop(way: str) -> Any:
    """From the thread of the event loop. `await`: the child waits for something, which it can't."""
    pid = os.fork()
    if not pid:
        in_child(way)
        if way == "await":
            await asyncio.get_event_loop_policy().get_event_loop().create_future()
        return 99
    while (found := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        await asyncio.sleep(0.02)
    return os.waitstatus_to_exitcode(found[1])

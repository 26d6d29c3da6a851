"""Tasks that a test in another process watches and lets go on, through files. Not discovered, like hostile.py."""

import asyncio
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

from i3tasks import task


class Gate:
    """What the test holds: who ran the task `name`, and when it may end."""

    def __init__(self, folder: Path | str, name: str) -> None:
        self._runs = Path(folder) / f"{name}.runs"
        self._open = Path(folder) / f"{name}.open"
        self.arguments = (str(folder), name)

    @property
    def pids(self) -> list[int]:
        """The processes that began it, in order."""
        return [int(line) for line in self._runs.read_text().split()] if self._runs.exists() else []

    @property
    def is_open(self) -> bool:
        return self._open.exists()

    def enter(self) -> None:
        with self._runs.open("a") as runs:
            runs.write(f"{os.getpid()}\n")

    def open(self) -> None:
        self._open.touch()


@task
async def ahold(folder: str, name: str) -> str:
    gate = Gate(folder, name)
    gate.enter()
    while not gate.is_open:
        await asyncio.sleep(0.02)
    return name


@task
def hold(folder: str, name: str) -> str:
    gate = Gate(folder, name)
    gate.enter()
    while not gate.is_open:
        time.sleep(0.02)
    return name


@task
async def cling(folder: str, name: str) -> str:
    """Swallows every cancellation, and has a thread that can't be ended either."""
    gate = Gate(folder, name)
    gate.enter()
    thread = asyncio.create_task(asyncio.to_thread(hold.spec.function, folder, f"{name}-thread"))
    while not gate.is_open:
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            continue
    return await thread


@task
async def block(folder: str, name: str) -> str:
    """A coroutine that blocks the event loop."""
    return hold.spec.function(folder, name)


@task(timeout=3)
async def exit_in(way: str) -> None:
    """Exits in a child task, or in a callback."""

    async def leave() -> None:
        await asyncio.sleep(0)
        sys.exit(3)

    if way == "gather":
        await asyncio.gather(asyncio.sleep(60), leave())
    elif way == "group":
        async with asyncio.TaskGroup() as group:
            group.create_task(leave())
            await asyncio.sleep(60)
    elif way == "callback":
        asyncio.get_running_loop().call_soon(sys.exit, 3)
        await asyncio.sleep(60)
    else:
        await _exit_in_reader()


async def _exit_in_reader() -> None:
    loop, (here, there) = asyncio.get_running_loop(), socket.socketpair()

    def leave() -> None:
        loop.remove_reader(here)
        sys.exit(3)

    loop.add_reader(here, leave)
    there.send(b"x")
    try:
        await asyncio.sleep(60)
    finally:
        here.close()
        there.close()


@task
def fork(way: str) -> list[int]:
    """Starts processes by fork, and ends them."""
    context = multiprocessing.get_context("fork")
    if way == "pool":
        with context.Pool(2) as pool:
            return pool.map(abs, [-1, -2])
    process = context.Process(target=time.sleep, args=(600,))
    process.start()
    process.terminate()
    process.join()
    return [process.exitcode or 0]

"""Tasks that a test in another process watches and lets go on, through files. Not discovered, like hostile.py."""

import asyncio
import os
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

"""The child processes of `isolation="process"` by themselves, without bodies."""

import asyncio
import os
import signal
import time
from pathlib import Path

import anyio.lowlevel
import pytest

from i3tasks.engine.processes import ChildProcesses, ProcessDied, told_to_end


async def test_a_process_serves_one_call_after_another_until_it_dies() -> None:
    processes = ChildProcesses(2)
    first = await processes.call(os.getpid)
    with pytest.raises(ValueError, match="invalid literal"):
        await processes.call(int, "x")
    assert await processes.call(os.getpid) == first, "an error leaves it warm"
    [child] = processes._all
    os.kill(first, signal.SIGKILL)
    await child.exited
    assert await processes.call(os.getpid) not in {first, os.getpid()}, "one that died while it waited is asked no more"
    with pytest.raises(ProcessDied):
        await processes.call(os._exit, 3)
    assert not processes._all
    processes.close()


def nap(sign: str) -> str:
    """Sleep until the parent says what to return. A SIGTERM that is not the parent's changes nothing."""
    told: list[str] = []

    def end(*_: object) -> None:
        if (text := told_to_end()) is not None:
            told.append(text)

    signal.signal(signal.SIGTERM, end)
    os.kill(os.getpid(), signal.SIGTERM)
    Path(sign).touch()
    while not told:
        time.sleep(0.01)
    return told[0]


async def test_a_call_that_is_cancelled_gives_what_the_function_comes_to_within_its_grace(tmp_path: Path) -> None:
    processes = ChildProcesses(1)
    call = asyncio.create_task(processes.call(nap, str(tmp_path / "sign"), grace=lambda: (60, "the end")))
    while not (tmp_path / "sign").exists():
        await asyncio.sleep(0.02)
    call.cancel()
    assert await call == "the end"
    assert not processes._all


async def test_a_call_that_is_cancelled_leaves_no_process_even_while_it_starts() -> None:
    processes = ChildProcesses(1)
    call = asyncio.create_task(processes.call(time.sleep, 60))
    while not processes._all:
        await anyio.lowlevel.checkpoint()
    [child] = processes._all
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert child.exited.done()
    assert not processes._all

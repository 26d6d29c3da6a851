"""The child processes of `isolation="process"` by themselves, without bodies."""

import asyncio
import os
import signal
import time

import anyio.lowlevel
import pytest

from i3tasks.engine.processes import ChildProcesses, ProcessDied


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

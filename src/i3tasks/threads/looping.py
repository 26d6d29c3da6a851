"""Loops that talk to the database beside an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from django.db import connections


async def repeat_in_own_thread(name: str, turn: Callable[[], float]) -> None:
    """Call `turn` again and again until cancelled, in a thread that has its own database connections.

    `turn` returns the seconds to wait until the next call.
    """
    thread = ThreadPoolExecutor(1, name)
    try:
        while True:
            seconds = await asyncio.get_running_loop().run_in_executor(thread, turn)
            await asyncio.sleep(seconds)
    finally:
        thread.submit(connections.close_all)
        thread.shutdown(wait=False)

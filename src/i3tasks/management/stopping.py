"""Commands that go on until they are stopped."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from ..threads.forking import signals_heard

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def run_until_stopped(*loops: Coroutine[Any, Any, None]) -> None:
    """Run endless loops side by side until SIGINT, SIGTERM or SIGHUP. An error in one ends all."""
    together, loop = asyncio.gather(*loops), asyncio.get_running_loop()

    def hear(*_: object) -> None:
        loop.call_soon_threadsafe(together.cancel)

    with signals_heard(hear, SIGNALS, with_echoes=True), suppress(asyncio.CancelledError):
        await together

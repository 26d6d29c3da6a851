"""Commands that go on until they are stopped."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any


async def run_until_stopped(*loops: Coroutine[Any, Any, None]) -> None:
    """Run endless loops side by side until SIGINT or SIGTERM. An error in one ends all."""
    together = asyncio.gather(*loops)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, together.cancel)
    with suppress(asyncio.CancelledError):
        await together

"""Receiving the messages of a queue while it is not paused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from ..broker.receiver import Incoming
from ..broker.streams import Streams
from ..conf import QueueNames
from ..store.pauses import known_pauses

LOOK_SECONDS = 0.5
"""How often it looks whether its queue is paused, which needs no query."""
LONGEST_LEAVE_SECONDS = 3600.0
"""How long the tries that run when a queue is paused can still acknowledge their messages. Messages of longer ones come
again when the queue is resumed, and are refused."""
CLOSING_SECONDS = 5.0


class QueueReceiver:
    """Streams of a queue that are closed while it is paused, and opened anew when it is resumed.

    Belongs to one event loop. To the worker it looks like `Streams`.
    """

    def __init__(self, names: QueueNames, *, max_messages: int, count: int) -> None:
        self.names = names
        self._make = partial(Streams, names, max_messages=max_messages, count=count)
        self._streams: Streams | None = self._make()
        self._leaving: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()

    @property
    def is_down(self) -> bool:
        """Tell whether Pub/Sub is known to deliver nothing now."""
        return self._streams is not None and self._streams.is_down

    @property
    def trouble(self) -> str | None:
        """The reason why a stream brings nothing, or None. May be read from any thread."""
        streams = self._streams
        return None if streams is None else streams.trouble

    @property
    def quiet_seconds(self) -> float:
        """As `Streams.quiet_seconds`; 0 while the queue is paused."""
        return 0.0 if self._streams is None else self._streams.quiet_seconds

    @property
    def is_sound(self) -> bool:
        """Tell whether the client works in every stream."""
        return self._streams is None or self._streams.is_sound

    def doubt(self) -> None:
        """Note that the database held tries that a stream should have brought."""
        if self._streams is not None:
            self._streams.doubt()

    async def run(self, deliver: Callable[[Incoming], None]) -> None:
        """Receive until `stop`, except while the queue is paused. Raises StreamBroken as `Streams.run` does."""
        while not self._stopped.is_set():
            if self._is_paused:
                self._leave()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._stopped.wait()
                continue
            if self._streams is None:
                self._streams = self._make()
            await self._receive(self._streams, deliver)

    async def _receive(self, streams: Streams, deliver: Callable[[Incoming], None]) -> None:
        running = asyncio.ensure_future(streams.run(deliver))
        try:
            while not running.done() and not self._is_paused:
                await asyncio.wait({running}, timeout=LOOK_SECONDS)
            if self._is_paused:
                streams.stop()
            await running
        finally:
            running.cancel()

    @property
    def _is_paused(self) -> bool:
        return known_pauses.hold(self.names.name)

    def _leave(self) -> None:
        """Close the streams once the tries that they brought are answered: those that run end as ever."""
        streams, self._streams = self._streams, None
        if streams is not None:
            task = asyncio.ensure_future(streams.drain(LONGEST_LEAVE_SECONDS))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def stop(self) -> None:
        """Stop receiving. Delivered messages may still be answered until `drain`. Idempotent."""
        self._stopped.set()
        if self._streams is not None:
            self._streams.stop()

    async def drain(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until all delivered messages are answered, send the answers, and close."""
        self.stop()
        leaving = {*self._leaving}
        if self._streams is not None:
            leaving.add(asyncio.ensure_future(self._streams.drain(timeout)))
        if leaving:
            _, late = await asyncio.wait(leaving, timeout=timeout + CLOSING_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

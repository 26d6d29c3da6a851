"""Several streams of one pull queue, which look like one receiver: a single stream carries only so much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..conf import QueueNames
from ..core.clock import SYSTEM_CLOCK, Clock
from .deliveries import Incoming
from .receiver import Receiver


class Streams:
    """Receives by `count` streams, each with a connection of its own. They share `max_messages`."""

    def __init__(self, names: QueueNames, *, max_messages: int, count: int, clock: Clock = SYSTEM_CLOCK) -> None:
        self._names = names
        share, left = divmod(max_messages, count)
        self._receivers = [Receiver(names, max_messages=share + (n < left), clock=clock) for n in range(count)]

    @property
    def names(self) -> QueueNames:
        """The names of the queue."""
        return self._names

    @property
    def is_down(self) -> bool:
        """Tell whether Pub/Sub is known to deliver nothing now: one stream that works is enough."""
        return all(receiver.is_down for receiver in self._receivers)

    @property
    def trouble(self) -> str | None:
        """The reason why a stream brings nothing, or None. May be read in any thread."""
        return next(filter(None, (receiver.trouble for receiver in self._receivers)), None)

    @property
    def quiet_seconds(self) -> float:
        """Seconds since the last sign, in any stream, that more messages wait than the worker takes."""
        return min([receiver.quiet_seconds for receiver in self._receivers])

    @property
    def is_sound(self) -> bool:
        """Tell whether the client works in every stream."""
        return all(receiver.is_sound for receiver in self._receivers)

    def doubt(self) -> None:
        """Note that the database held tries that a stream should have brought."""
        for receiver in self._receivers:
            receiver.doubt()

    async def run(self, deliver: Callable[[Incoming], None]) -> None:
        """Receive until `stop`. Raises StreamBroken if the client of one stream breaks again and again."""
        running = [asyncio.ensure_future(receiver.run(deliver)) for receiver in self._receivers]
        try:
            await asyncio.gather(*running)
        finally:
            for one in running:
                one.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def stop(self) -> None:
        """Stop receiving. Delivered messages may still be answered until `drain`. Idempotent."""
        for receiver in self._receivers:
            receiver.stop()

    async def drain(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until all delivered messages are answered, send the answers, and close."""
        await asyncio.gather(*(receiver.drain(timeout) for receiver in self._receivers))

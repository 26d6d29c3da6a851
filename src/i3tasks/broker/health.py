"""Is the stream well? The library reconnects in silence, so this reads its health from how often streams are opened."""

from __future__ import annotations

import asyncio

from ..clock import Clock
from ..exceptions import BrokerError
from ..telemetry import emit
from .errors import BrokerUnavailable

STEADY_SECONDS = 30.0
"""A stream that lasts so long is well; sooner than that, only a message shows it."""


class StreamHealth:
    """Logs trouble once and its end once. Lives on the loop."""

    def __init__(self, queue_name: str, subscription: str, clock: Clock) -> None:
        self._queue_name = queue_name
        self._subscription = subscription
        self._clock = clock
        self._opened_at: float | None = None
        self._said: set[type[BrokerError]] = set()
        self._restarted = False
        self._timer: asyncio.TimerHandle | None = None

    def opened(self) -> None:
        """The library opened a stream, anew or again. The one before was bad if it was short and carried nothing."""
        now = self._clock.monotonic()
        if self._opened_at is not None and now - self._opened_at < STEADY_SECONDS:
            self._trouble(BrokerUnavailable(f"Pub/Sub can't be reached, or closes the stream of {self._subscription}."))
        self._opened_at = now
        self.close()
        self._timer = asyncio.get_running_loop().call_later(STEADY_SECONDS, self.well)

    def failed(self, error: BrokerError) -> None:
        """The subscription ended and must be made anew."""
        self._restarted = True
        self._opened_at = None
        self._trouble(error)

    def well(self) -> None:
        """A message came, or the stream lasted."""
        self._opened_at = None
        if self._said:
            emit("receiver_restarted" if self._restarted else "broker_recovered", queue=self._queue_name)
            self._said.clear()
            self._restarted = False

    def close(self) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _trouble(self, error: BrokerError) -> None:
        if type(error) not in self._said:
            self._said.add(type(error))
            emit("broker_unavailable", what="receiver", queue=self._queue_name, error=str(error))

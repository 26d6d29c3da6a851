"""Is the stream well? The library reconnects in silence, so this watches how often it does, and the connection."""

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
        self._is_connected = True
        self._is_closed = False
        self._restarted = False
        self._said: set[type[BrokerError]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def opened(self) -> None:
        """The library opened a stream, anew or again. The one before was bad if it was short and carried nothing."""
        if self._is_closed:
            return
        now = self._clock.monotonic()
        if self._opened_at is not None and now - self._opened_at < STEADY_SECONDS:
            self._trouble(BrokerUnavailable(f"Pub/Sub closes the stream of {self._subscription} again and again."))
        self._opened_at = now
        self._wait_until_steady()

    def connected(self, is_ready: bool) -> None:
        """The connection under a stream that was opened is there, or can't be made."""
        if self._is_closed:
            return
        if not is_ready:
            self._is_connected = False
            self._trouble(BrokerUnavailable(f"Pub/Sub can't be reached to stream {self._subscription}."))
        elif not self._is_connected:
            self.well()

    def failed(self, error: BrokerError) -> None:
        """The subscription ended and must be made anew."""
        self._restarted = True
        self._opened_at = None
        self._trouble(error)

    def well(self) -> None:
        """A message came, or the connection is back, or the stream lasted."""
        self._opened_at = None
        self._is_connected = True
        if self._said:
            emit("receiver_restarted" if self._restarted else "broker_recovered", queue=self._queue_name)
            self._said.clear()
        self._restarted = False

    def close(self) -> None:
        """Nobody is interested any more."""
        self._is_closed = True
        self._stop_timer()

    def _wait_until_steady(self) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(STEADY_SECONDS, self._steady)

    def _steady(self) -> None:
        if self._is_connected:
            self.well()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _trouble(self, error: BrokerError) -> None:
        if type(error) not in self._said:
            self._said.add(type(error))
            emit("broker_unavailable", what="receiver", queue=self._queue_name, error=str(error))

"""The health of a stream, judged by its connection and by how often the library reopens it, which it does silently."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime

from ..core.clock import Clock
from ..exceptions import BrokerError
from ..telemetry import emit
from .errors import BrokerUnavailable, StreamBroken, StreamSilent

MANY = 20
"""Old messages that show that a backlog moves; of a receiver that has fewer at a time, as many as that."""
STEADY_SECONDS = 30.0
"""Time after which an open stream counts as healthy. Before that, only a message shows that it is."""


class StreamHealth:
    """Reports each kind of trouble once, and its end once. Used on the event loop only."""

    def __init__(self, queue_name: str, subscription: str, clock: Clock) -> None:
        self._queue_name = queue_name
        self._subscription = subscription
        self._clock = clock
        self._opened_at: float | None = None
        self._is_connected = True
        self._is_closed = False
        self._restarted = False
        self._said: dict[type[BrokerError], str] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_down(self) -> bool:
        """Tell whether there was trouble whose end has not been seen."""
        return bool(self._said)

    @property
    def trouble(self) -> str | None:
        """The first trouble whose end has not been seen, or None."""
        return next(iter(list(self._said.values())), None)

    def opened(self) -> None:
        """Note that the library opened a stream. The previous stream was bad if it was short and brought no message."""
        if self._is_closed:
            return
        now = self._clock.monotonic()
        if self._opened_at is not None and now - self._opened_at < STEADY_SECONDS:
            self._trouble(BrokerUnavailable(f"Pub/Sub closes the stream of {self._subscription} again and again."))
        self._opened_at = now
        self._wait_until_steady()

    def connected(self, is_ready: bool) -> None:
        """Note that the connection of an open stream was made, or can't be made."""
        if self._is_closed:
            return
        if not is_ready:
            self._is_connected = False
            self._trouble(BrokerUnavailable(f"Pub/Sub can't be reached to stream {self._subscription}."))
        elif not self._is_connected:
            self.well()

    def failed(self, error: BrokerError) -> None:
        """Note that the session failed with `error` and must be opened again."""
        self._restarted = True
        self._opened_at = None
        self._trouble(error)

    def well(self) -> None:
        """Note a sign of health: a message came, the connection is back, or the stream has lasted."""
        self._opened_at = None
        self._is_connected = True
        if self._said:
            emit("receiver_restarted" if self._restarted else "broker_recovered", queue=self._queue_name)
            self._said.clear()
        self._restarted = False

    def close(self) -> None:
        """Stop watching."""
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
            self._said[type(error)] = str(error)
            if isinstance(error, (StreamBroken, StreamSilent)):
                emit("receiver_broken", queue=self._queue_name, error=str(error))
            else:
                emit("broker_unavailable", what="receiver", queue=self._queue_name, error=str(error))


class Quiet:
    """The time since the last sign that more messages wait in Pub/Sub than the worker takes.

    A sign is a receiver that has no room for more, or MANY messages within the patience that are old when they come.
    While there are signs, the messages of waiting rows are on their way. After a while without any, Pub/Sub has lost
    these messages, or delivers most of them to workers that have died.
    """

    def __init__(self, clock: Clock, patience_seconds: float, most_messages: int) -> None:
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._since = clock.monotonic()
        self._old_came_at: deque[float] = deque(maxlen=min(most_messages, MANY))

    @property
    def seconds(self) -> float:
        """Seconds since the last sign."""
        return self._clock.monotonic() - self._since

    def arrived(self, published: datetime) -> None:
        """Note a message that was published at this time. It is old after half of the patience."""
        if (self._clock.now() - published).total_seconds() <= self._patience_seconds / 2:
            return
        now, came_at = self._clock.monotonic(), self._old_came_at
        came_at.append(now)
        if len(came_at) == came_at.maxlen and now - came_at[0] <= self._patience_seconds:
            self.broken()

    def broken(self) -> None:
        """Note a sign."""
        self._since = self._clock.monotonic()

"""Remembers that the broker is down, so that a flood of messages makes one request a second and one log line."""

from __future__ import annotations

from typing import Any

from ..clock import SYSTEM_CLOCK, Clock
from ..telemetry import emit
from .errors import BrokerUnavailable

PROBE_SECONDS = 1.0


class Circuit:
    """Closed while the broker answers. Open after a failure: then only one probe a second may go through."""

    def __init__(self, what: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._what = what
        self._clock = clock
        self._error: BrokerUnavailable | None = None
        self._probe_at = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether the last request was answered."""
        return self._error is None

    def check(self) -> None:
        """Raise the last BrokerUnavailable again unless it is time to try."""
        if self._error is not None and self._clock.monotonic() < self._probe_at:
            # A new one each time, or its traceback would grow with each raise.
            raise BrokerUnavailable(str(self._error))

    def failed(self, error: BrokerUnavailable, **facts: Any) -> None:
        """No answer. Logged when it is the first one."""
        if self._error is None:
            emit("broker_unavailable", what=self._what, error=str(error), **facts)
        self._error = error
        self._probe_at = self._clock.monotonic() + PROBE_SECONDS * self._clock.jitter(0.2)

    def answered(self) -> None:
        """Any answer, also a refusal. Logged when it ends an outage."""
        if self._error is not None:
            self._error = None
            emit("broker_recovered", what=self._what)

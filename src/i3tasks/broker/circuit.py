"""A circuit breaker: while the broker is down, many messages cause one request a second and one log line."""

from __future__ import annotations

from typing import Any

from ..core.clock import SYSTEM_CLOCK, Clock
from ..exceptions import BrokerError
from ..telemetry import emit
from .errors import BrokerUnavailable

PROBE_SECONDS = 1.0
FRESH_SECONDS = 60.0
"""How long after the last failure it is still reported: an idle process does not notice the end of an outage."""


REFUSED_SECONDS = 180.0
"""How long a refusal counts: longer than the longest pause after which the dispatcher publishes a refused try again."""


class Refusals:
    """The topics that refuse all messages (deleted, no permission), each until it takes one or the refusal is old."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._refused: dict[str, tuple[float, str]] = {}

    def note(self, topic: str, refusal: BrokerError | None) -> None:
        """Note the answer to a request, which is None for one that was taken."""
        if refusal is None:
            self._refused.pop(topic, None)
        else:
            self._refused[topic] = self._clock.monotonic(), str(refusal)

    def includes(self, topic: str) -> bool:
        """Tell whether the topic refused the last message, and did so lately. May be called in any thread."""
        return self._is_fresh(*self._refused.get(topic, ()))

    @property
    def trouble(self) -> str | None:
        """The refusal of one of these topics; None if there is none. May be read in any thread."""
        return next((said for at, said in self._refused.copy().values() if self._is_fresh(at)), None)

    def _is_fresh(self, at: Any = None, *_: object) -> bool:
        return at is not None and self._clock.monotonic() - at < REFUSED_SECONDS


class Circuit:
    """A circuit breaker, closed while the broker answers. After a failure it lets one request a second through."""

    def __init__(self, what: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._what = what
        self._clock = clock
        self._error: BrokerUnavailable | None = None
        self._probe_at = 0.0
        self._failed_at = 0.0

    @property
    def is_closed(self) -> bool:
        """Tell whether the last request was answered."""
        return self._error is None

    @property
    def trouble(self) -> str | None:
        """The reason why the last request was not answered, or None if it was."""
        return None if self._error is None else str(self._error)

    @property
    def fresh_trouble(self) -> str | None:
        """The same, if the last failure is at most FRESH_SECONDS old; else None."""
        return self.trouble if self._clock.monotonic() - self._failed_at < FRESH_SECONDS else None

    def check(self) -> None:
        """Raise the last BrokerUnavailable again unless the next attempt is due."""
        if self._error is not None and self._clock.monotonic() < self._probe_at:
            # A new error each time: the traceback of one error would grow with each raise.
            raise BrokerUnavailable(str(self._error))

    def failed(self, error: BrokerUnavailable, **facts: Any) -> None:
        """Note a request without an answer. The first one is logged."""
        if self._error is None:
            emit("broker_unavailable", what=self._what, error=str(error), **facts)
        self._error = error
        self._failed_at = self._clock.monotonic()
        self._probe_at = self._clock.monotonic() + PROBE_SECONDS * self._clock.jitter(0.2)

    def answered(self) -> None:
        """Note an answer, which may be a refusal. The answer that ends an outage is logged."""
        if self._error is not None:
            self._error = None
            emit("broker_recovered", what=self._what)

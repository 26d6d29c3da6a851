"""The pace of pushes: Pub/Sub's documented push window with slow start, and its push back-off."""

from __future__ import annotations

FIRST_WINDOW = 4
MAX_WINDOW = 100
MIN_BACKOFF, MAX_BACKOFF = 0.1, 60.0


class Pacing:
    """The limits of one endpoint. Times are in seconds; all must come from the same clock.

    Each success with a full window widens the window by one, so that it doubles in the time of one request. A failure
    halves it. Failures in a row also pause deliveries, each time for twice as long. A request that was under way when
    a pause began counts as part of the same failure and does not make the pause longer.
    """

    def __init__(self) -> None:
        self.window = FIRST_WINDOW
        self.paused_until = 0.0
        self._failures_in_a_row = 0
        self._paused_at = float("-inf")

    def succeeded(self, *, outstanding: int) -> None:
        """Note that a request was acknowledged, and how many were outstanding. Only a full window grows."""
        if outstanding >= self.window:
            self.window = min(self.window + 1, MAX_WINDOW)
        self._failures_in_a_row = 0

    def failed(self, *, started: float, now: float) -> None:
        """Note that a request that began at `started` was not acknowledged."""
        if started < self._paused_at:
            return
        self.window = max(self.window // 2, 1)
        pause = min(MIN_BACKOFF * 2.0 ** min(self._failures_in_a_row, 16), MAX_BACKOFF)
        self._failures_in_a_row += 1
        self._paused_at, self.paused_until = now, now + pause

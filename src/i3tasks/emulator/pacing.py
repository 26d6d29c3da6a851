"""How fast to push: the documented push window with slow start, and push back-off."""

from __future__ import annotations

FIRST_WINDOW = 4
MAX_WINDOW = 100
MIN_BACKOFF, MAX_BACKOFF = 0.1, 60.0


class Pacing:
    """One endpoint's limits. Times are in seconds, from any one clock.

    Each success widens the window by one, which doubles it in the time of a request; a failure halves it. Failures in
    a row also stop deliveries for a while, twice as long each time. Those of requests that were under way when such a
    pause began are part of the same trouble and don't lengthen it.
    """

    def __init__(self) -> None:
        self.window = FIRST_WINDOW
        self.paused_until = 0.0
        self._failures_in_a_row = 0
        self._paused_at = float("-inf")

    def succeeded(self, *, outstanding: int) -> None:
        """A request was acknowledged, while so many were outstanding. A window that isn't full needn't grow."""
        if outstanding >= self.window:
            self.window = min(self.window + 1, MAX_WINDOW)
        self._failures_in_a_row = 0

    def failed(self, *, started: float, now: float) -> None:
        """A request that began at `started` was not."""
        if started < self._paused_at:
            return
        self.window = max(self.window // 2, 1)
        pause = min(MIN_BACKOFF * 2.0 ** min(self._failures_in_a_row, 16), MAX_BACKOFF)
        self._failures_in_a_row += 1
        self._paused_at, self.paused_until = now, now + pause

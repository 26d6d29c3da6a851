"""Log lines of a worker about successful tries: one for each while there are few, else a sum."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass, field, replace

from ..telemetry import Event, Facts, emit
from ..telemetry.lines import record_of
from ..threads.batching import BatchThread

SECONDS = 5.0
LINES = 50
"""As many tries have a line each in an interval of that many seconds; the others are summed up at its end."""
SHOWN = 5


@dataclass(slots=True)
class _Interval:
    """The successes since the last sum."""

    lines: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class Tally:
    """Counts successful tries. Gives lines of the first ones to `handler`, and emits one event for the others."""

    def __init__(self, handler: logging.Handler, *, seconds: float = SECONDS, lines: int = LINES) -> None:
        self._handler = handler
        self._seconds = seconds
        self._most = lines
        self._lock = threading.Lock()  # between the loop that runs tries and the thread that sums them up
        self._now: _Interval | None = None
        self._timer: BatchThread[None] = BatchThread(
            "i3tasks-tally", lambda _: self.sum_up(), max_batch=1, max_queued=10, idle_seconds=lambda: 2 * seconds
        )

    def __call__(self, event: Event, facts: Facts) -> None:
        with self._lock:
            if self._now is None:
                self._now = _Interval()
                self._timer.put(None, delay=self._seconds)
            now = self._now
            now.lines += 1
            has_line = now.lines <= self._most
            if not has_line:
                now.tasks[facts["task"]] += 1
                now.seconds += facts["duration"]
        if has_line:
            self._handler.handle(record_of(replace(event, level=logging.INFO), facts))

    def sum_up(self) -> None:
        """End the interval: report what had no line of its own."""
        with self._lock:
            ended, self._now = self._now, None
        if ended is not None and (count := ended.tasks.total()):
            tasks = [f"{task}: {number}" for task, number in ended.tasks.most_common(SHOWN)]
            mean = ended.seconds / count
            emit("tries_summed_up", count=count, seconds=self._seconds, mean_duration=mean, tasks=tasks)

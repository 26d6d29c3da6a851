"""The recent work: how many tries ended, how they ended, how long they had waited, and which ones failed.

Read from the newest results and by the index of failed tries, and bounded: it costs milliseconds, however many rows
there are and however fast they come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ..models import ExecutionOutcome, TaskExecution, TaskExecutionResult, TaskExecutionTry
from .database import rows
from .states import FAILED_TRY, called_off

MOST_RESULTS = 3_000
MOST_FAILURES = 2_000
LONGEST = timedelta(hours=1)
BUCKETS = 60
SPANS = (5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600)
"""Seconds that a chart may cover."""
SHORTEST = 300
"""Seconds, unless there are too many results for so long."""
_COLUMNS = tuple(
    f"task_execution_try__{name}"
    for name in ["finished_at", "is_success", "started_at", "run_after", "asked_at", "task_execution_id", "error_class"]
)


@dataclass(slots=True)
class Bucket:
    """The tries that ended within a part of the time."""

    start: datetime
    succeeded: int = 0
    failed: int = 0
    waits: list[float] = field(default_factory=list)
    """Seconds that each had waited since it was due."""

    @property
    def ended(self) -> int:
        return self.succeeded + self.failed

    @property
    def wait(self) -> float | None:
        """The mean; None if nothing ended."""
        return sum(self.waits) / len(self.waits) if self.waits else None


@dataclass(frozen=True, slots=True)
class Recent:
    """The tries that succeeded or failed in the last `seconds`, in BUCKETS parts of it, the oldest first."""

    seconds: int
    buckets: Sequence[Bucket]

    @property
    def ended(self) -> int:
        return sum(bucket.ended for bucket in self.buckets)

    @property
    def failed(self) -> int:
        return sum(bucket.failed for bucket in self.buckets)

    @property
    def per_second(self) -> float:
        return self.ended / self.seconds

    @property
    def longest_wait(self) -> float | None:
        """In seconds."""
        return max((max(bucket.waits) for bucket in self.buckets if bucket.waits), default=None)


def recent(now: datetime) -> Recent:
    """Read the newest results. Where they come so fast that an hour has more than MOST_RESULTS, it covers less."""
    newest: Any = rows(TaskExecutionResult).order_by("-pk").values_list(*_COLUMNS)
    found = list(newest[:MOST_RESULTS])
    ended = [row for row in found if row[0] is not None and row[2] is not None and row[0] >= now - LONGEST]
    seconds = _span(ended, now, is_cut=len(found) == MOST_RESULTS)
    size = seconds / BUCKETS
    start = now - timedelta(seconds=seconds)
    cancelled = called_off([(execution_id, row[0], cls) for *row, execution_id, cls in ended if not row[1]])
    buckets = [Bucket(start + timedelta(seconds=size * number)) for number in range(BUCKETS)]
    for finished_at, is_success, started_at, run_after, asked_at, execution_id, _ in ended:
        if (execution_id, finished_at) in cancelled:
            continue
        number = int((finished_at - start).total_seconds() // size)
        if 0 <= number <= BUCKETS:
            _count(buckets[min(number, BUCKETS - 1)], is_success, started_at - (run_after or asked_at))
    return Recent(seconds, buckets)


@dataclass(frozen=True, slots=True)
class Failures:
    """Executions that failed for good, by their tasks. With `is_cut` there are more."""

    number: int
    is_cut: bool
    tasks: Sequence[tuple[str, int]]
    """The tasks with the most of them."""


def failures(now: datetime, spans: Sequence[timedelta]) -> list[Failures]:
    """How many failed within each of these spans of time until now; the last one is the longest."""
    tries = rows(TaskExecutionTry).filter(FAILED_TRY, finished_at__gte=now - spans[-1])
    newest: list[Any] = list(
        tries.order_by("-finished_at").values_list("task_execution_id", "finished_at")[: MOST_FAILURES + 1]
    )
    is_cut = len(newest) > MOST_FAILURES
    failed = rows(TaskExecution).filter(pk__in=[pk for pk, _ in newest], outcome=ExecutionOutcome.FAILED)
    names = (
        {pk: f"{path}.{name}" for pk, path, name in failed.values_list("pk", "task_path", "task_name")}
        if newest
        else {}
    )
    last = dict(reversed(newest))
    return [_since(now - span, last, names, is_cut=is_cut and newest[-1][1] >= now - span) for span in spans]


def _since(since: datetime, last: dict[int, datetime], names: dict[int, str], *, is_cut: bool) -> Failures:
    within = [name for pk, name in names.items() if last[pk] >= since]
    return Failures(len(within), is_cut, Counter(within).most_common(5))


def _span(ended: Sequence[Any], now: datetime, *, is_cut: bool) -> int:
    """The shortest into which all fit; of results that were cut off, the longest that they fill."""
    age = (now - min(row[0] for row in ended)).total_seconds() if ended else LONGEST.total_seconds()
    if is_cut:
        return max((span for span in SPANS if span <= age), default=SPANS[0])
    return next((span for span in SPANS if max(age, SHORTEST) <= span), SPANS[-1])


def _count(bucket: Bucket, is_success: bool, wait: timedelta) -> None:
    bucket.waits.append(max(wait.total_seconds(), 0.0))
    if is_success:
        bucket.succeeded += 1
    else:
        bucket.failed += 1

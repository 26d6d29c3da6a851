"""The tries that ended lately, with their tasks, queues, waits and durations: the source of the board's figures.

Only the newest are read, a bounded number of them, so it costs milliseconds however many rows there are. Where tries
end so fast that these cover less than a day, `since` says from when on they are all there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..conf import queue_or_default
from ..models import TaskExecution, TaskExecutionResult, TaskExecutionTry
from .database import Rows, rows
from .states import FAILED_TRY, called_off

MOST = 3_000
LONGEST = timedelta(days=1)
_COLUMNS = (
    *("pk", "task_execution_id", "asked_at", "run_after", "started_at", "finished_at", "is_success", "error_class"),
    "worker_id",
)


@dataclass(frozen=True, slots=True)
class Ended:
    """A try that has ended. Seconds."""

    try_id: int
    execution_id: int
    task: str
    queue: str
    finished_at: datetime
    wait: float
    duration: float
    is_success: bool
    error_class: str
    worker_id: str


@dataclass(frozen=True, slots=True)
class Lately:
    """All tries that succeeded or failed between `since` and `now`, the newest first. Cancelled ones are neither.

    `is_cut`: before that, too many ended.
    """

    tries: Sequence[Ended]
    since: datetime
    now: datetime
    is_cut: bool

    @property
    def seconds(self) -> float:
        return max((self.now - self.since).total_seconds(), 1.0)

    def buckets(
        self, tries: Iterable[Ended], count: int, value: Callable[[Sequence[Ended]], float | None]
    ) -> list[float | None]:
        """The value of the tries of each of `count` parts of the time."""
        return [value(part) for part in self.parts(tries, count)]

    def parts(self, tries: Iterable[Ended], count: int) -> list[list[Ended]]:
        """The tries of each of `count` parts of the time."""
        parts: list[list[Ended]] = [[] for _ in range(count)]
        for one in tries:
            number = int((one.finished_at - self.since).total_seconds() / self.seconds * count)
            parts[min(max(number, 0), count - 1)].append(one)
        return parts


def ended_lately(now: datetime, longest: timedelta = LONGEST) -> Lately:
    """Read the tries that ended within `longest`, at most MOST of them."""
    newest = rows(TaskExecutionResult).order_by("-pk").values_list("task_execution_try_id", flat=True)
    ids = list(newest[:MOST])
    tries = rows(TaskExecutionTry).filter(pk__in=ids, started_at__isnull=False)
    return _read(tries if ids else tries.none(), now, longest, is_cut=len(ids) == MOST)


def failed_lately(now: datetime, longest: timedelta = LONGEST) -> Lately:
    """The same of failed tries only, which may reach back further."""
    failed = rows(TaskExecutionTry).filter(FAILED_TRY, finished_at__gte=now - longest)
    ids = list(failed.order_by("-finished_at").values_list("pk", flat=True)[:MOST])
    tries = rows(TaskExecutionTry).filter(pk__in=ids, started_at__isnull=False)
    return _read(tries if ids else tries.none(), now, longest, is_cut=len(ids) == MOST)


def mean(numbers: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(numbers) / len(numbers) if numbers else None


def percentile(numbers: Sequence[float], percent: int) -> float | None:
    """The number that so many percent do not exceed; None of nothing."""
    ordered = sorted(numbers)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else None


def _read(tries: Rows, now: datetime, longest: timedelta, *, is_cut: bool) -> Lately:
    found: list[Any] = [row for row in tries.values_list(*_COLUMNS) if row[5] is not None]
    first = min((row[5] for row in found), default=now)
    is_cut = is_cut and first > now - longest
    since = first if is_cut else now - longest
    found = [row for row in found if row[5] >= since]
    cancelled = called_off([(row[1], row[5], row[7]) for row in found if not row[6]])
    found = [row for row in found if (row[1], row[5]) not in cancelled]
    executions = rows(TaskExecution).filter(pk__in={row[1] for row in found})
    named = executions.values_list("pk", "task_path", "task_name", "queue_name") if found else ()
    names = {pk: (f"{path}.{name}", queue) for pk, path, name, queue in named}
    ended = [_ended(row, *names[row[1]]) for row in found if row[1] in names]
    return Lately(sorted(ended, key=lambda one: one.finished_at, reverse=True), since, now, is_cut)


def _ended(row: Sequence[Any], task: str, queue: str | None) -> Ended:
    try_id, execution_id, asked_at, run_after, started_at, finished_at, is_success, error_class, worker_id = row
    return Ended(
        try_id=try_id,
        execution_id=execution_id,
        task=task,
        queue=queue_or_default(queue),
        finished_at=finished_at,
        wait=max((started_at - (run_after or asked_at)).total_seconds(), 0.0),
        duration=max((finished_at - started_at).total_seconds(), 0.0),
        is_success=is_success,
        error_class=error_class or "",
        worker_id=worker_id or "",
    )

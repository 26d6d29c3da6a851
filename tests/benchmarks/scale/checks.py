"""What is measured of growth: python -m tests.benchmarks.scale.checks NAME COUNT, as a process of a measure."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..harness import bodies
from ..harness.contestant import contestant_class
from ..harness.measure import Measure
from ..harness.processes import resident
from ..harness.workloads import RUN
from . import queries, rows

Figures = dict[str, Any]
KIND = "noop_async"
DRAINS = 3
LONGEST_SECONDS = 1800
SHARE = 20_000
GROUP_SIZES = (4, 20)
Fill = Callable[..., None]


def finished(contestant: Any, count: int) -> Figures:
    """Drains on empty tables and beside so many finished executions; then the queries of loops, health and admin."""
    empty = [_drained(contestant) for _ in range(DRAINS)]
    began = time.monotonic()
    rows.fill(contestant.sql, count)
    filled = time.monotonic() - began
    asked = list(queries.measured())
    full = [_drained(contestant) for _ in range(DRAINS)]
    ratio = _median(full) / _median(empty)
    return {"empty": empty, "full": full, "ratio": ratio, "fill_seconds": filled, "queries": asked}


def deferred(contestant: Any, count: int) -> Figures:
    """So many tasks, due one after the other within one minute that is about to begin; how late they began."""
    from datetime import timedelta

    from django.utils import timezone

    task = contestant.functions.TASKS[KIND]
    ahead = max(20.0, count / 2000)
    due = timezone.now() + timedelta(seconds=ahead)
    share = 1000
    for first in range(0, count, share):
        moment = due + timedelta(seconds=60 * first / count)
        task.using(run_after=moment).delay_many([(index,) for index in range(first, min(first + share, count))])
    spare = (due - timezone.now()).total_seconds()
    with _worker(contestant) as pid:
        done, seconds = _await(contestant, count)
        peak = resident(pid)
    starts = {index: at / 1e9 for index, at, phase in bodies.read(Path(contestant.measure.record)) if phase == 0}
    late = sorted(at - due.timestamp() - 60 * (index // share * share) / count for index, at in starts.items())
    return {
        "tasks": count,
        "done": done,
        "written_before_due_seconds": spare,
        "seconds": seconds,
        "late_p50_seconds": late[len(late) // 2],
        "late_p99_seconds": late[int(len(late) * 0.99)],
        "early": sum(lateness < 0 for lateness in late),
        "mb": peak / 1e6,
    }


def members(contestant: Any, count: int) -> Figures:
    """A group of so many, and its callback."""
    from i3tasks import group

    functions = contestant.functions
    with _worker(contestant):
        began = time.monotonic()
        group(functions.TASKS[KIND].s(index) for index in range(count)).then(functions.TASKS[KIND].s(count)).delay()
        written = time.monotonic() - began
        done, _ = _await(contestant, count + 1)
        return {"tasks": count, "done": done, "write_seconds": written, "seconds": time.monotonic() - began}


def groups(contestant: Any, count: int) -> Figures:
    """So many tasks wait: of no group, and as members of groups of several sizes. The tasks a second of each drain."""
    from i3tasks import group

    task = contestant.functions.TASKS[KIND]

    def in_groups_of(size: int) -> Fill:
        def fill(count: int, kind: str, start: int = 0) -> None:
            for first in range(start, start + count, size):
                group(task.s(index) for index in range(first, min(first + size, start + count))).delay()
            contestant.fill(0, kind)  # waits for the publishing

        return fill

    sizes = {f"groups of {size}": _drained(contestant, count, in_groups_of(size)) for size in (*GROUP_SIZES, count)}
    return {"no group": _drained(contestant, count, contestant.fill), **sizes}


def burst(contestant: Any, count: int) -> Figures:
    """So many tasks come at once. The tasks a second of each drain: of tasks that are all alike, and where the later
    half has a higher priority; with statistics of the time before, when nothing waited, and with new ones."""
    task = contestant.functions.TASKS[KIND]

    def filled(priorities: Sequence[int], is_analyzed: bool) -> Fill:
        def fill(count: int, kind: str, start: int = 0) -> None:
            rows.analyze(contestant.sql)
            for number, priority in enumerate(priorities):
                begin, end = (count * part // len(priorities) for part in (number, number + 1))
                for first in range(begin, end, SHARE):
                    calls = [(start + index,) for index in range(first, min(first + SHARE, end))]
                    task.using(priority=priority).delay_many(calls)
                    contestant.fill(0, kind)  # waits for the publishing
            if is_analyzed:
                rows.analyze(contestant.sql)

        return fill

    _drained(contestant)  # so that tries have ended
    rows.leave_statistics(contestant.sql)
    return {
        f"{name}, {'new' if is_analyzed else 'old'} statistics": _drained(contestant, count, filled(each, is_analyzed))
        for name, each in {"alike": (0,), "two priorities": (0, 1)}.items()
        for is_analyzed in (False, True)
    }


def through(contestant: Any, count: int) -> Figures:
    """So many tasks through one worker: its memory and connections as it goes, and the rate of each tenth."""
    # Of more at once, a process publishes a part, and leaves the rest to a dispatcher.
    for first in range(0, count, SHARE):
        contestant.fill(min(SHARE, count - first), KIND, first)
    seen: list[Figures] = []
    with _worker(contestant) as pid:
        began = time.monotonic()
        done = 0
        while done < count and time.monotonic() - began < LONGEST_SECONDS:
            contestant.check_worker()
            time.sleep(1)
            ran = bodies.count(Path(contestant.measure.record))
            if ran >= count * (len(seen) + 1) / 10:
                seen.append(
                    {"ran": ran, "at": time.monotonic() - began, "mb": resident(pid) / 1e6, **_sessions(contestant)}
                )
            done = contestant.completed() if ran >= count else 0
        seconds = time.monotonic() - began
    return {"tasks": count, "done": done, "per_second": done / seconds, "seen": seen}


CHECKS: dict[str, Callable[[Any, int], Figures]] = {
    "finished": finished,
    "deferred": deferred,
    "members": members,
    "groups": groups,
    "burst": burst,
    "through": through,
}
"""`through` is the backlog as well: all of its messages wait when the worker begins."""


def _sessions(contestant: Any) -> Figures:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    return {"sessions": int(contestant.sql(query))}


def _drained(contestant: Any, count: int | None = None, fill: Fill | None = None) -> float:
    """The tasks a second of one drain, whose tasks are counted beside those that are done already.

    `count` and `fill`: other than the workload's own.
    """
    record = Path(contestant.measure.record)
    record.unlink(missing_ok=True)
    before = contestant.completed()
    beside = contestant_class("i3tasks")(contestant.measure)
    beside.completed = lambda: contestant.completed() - before  # type: ignore[method-assign]
    if count is not None:
        beside.sizes["drain"] = count
    if fill is not None:
        beside.fill = fill  # type: ignore[method-assign]
    try:
        return float(RUN["drain"](beside)["per_second"])
    finally:
        beside.stop_worker()
        record.unlink(missing_ok=True)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


@contextmanager
def _worker(contestant: Any) -> Iterator[int]:
    pid = contestant.start_worker(KIND)
    try:
        contestant.activate()
        yield pid
    finally:
        contestant.stop_worker()


def _await(contestant: Any, count: int) -> tuple[int, float]:
    began = time.monotonic()
    done, _ = contestant.wait(count, KIND, began + LONGEST_SECONDS)
    return done, time.monotonic() - began


def main() -> None:
    import django

    django.setup()
    name, count = sys.argv[1], int(sys.argv[2])
    contestant = contestant_class("i3tasks")(Measure.current())
    try:
        contestant.setup()
        print(json.dumps({"check": name, **CHECKS[name](contestant, count)}, indent=1), flush=True)
    finally:
        contestant.teardown()


if __name__ == "__main__":
    main()

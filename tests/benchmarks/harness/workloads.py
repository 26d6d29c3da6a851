"""The workloads. Each returns the figures of one measure; docs/performance.md defines them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from . import bodies, pushing
from .contestant import Contestant
from .measure import Measure
from .processes import Peak, cpu_seconds, proportional, resident, tree

PERCENTILES = (50, 95, 99)
AT_ONCE = (1, 20, 100)
"""Workload push: the requests at a time."""
WARM_UP = 100
OTHERS = 1_000_000
"""Indices from here on belong to tasks beside the measured ones."""
Figures = dict[str, Any]


def size(contestant: Contestant) -> int:
    """The number of tasks of this measure."""
    measure = contestant.measure
    scale = measure.scale if measure.workload in ("drain", "enqueue", "push") else min(measure.scale, 1.0)
    given = contestant.sizes.get(measure.workload, contestant.count)
    return max(1, int(given * scale))


def drain(contestant: Contestant) -> Figures:
    """All tasks wait; the worker starts, and runs them."""
    measure, count = contestant.measure, size(contestant)
    contestant.fill(count, measure.kind)
    services = _service_seconds(measure)
    began = time.time_ns()
    pid = contestant.start_worker(measure.kind)
    with Peak(pid) as peak:
        contestant.activate()
        deadline = time.monotonic() + measure.limit
        _await_bodies(contestant, 1, deadline)
        cpu = cpu_seconds(pid)
        done, ended = contestant.wait(count, measure.kind, deadline)
        cpu = cpu_seconds(pid) - cpu
        shared = proportional(pid)
    starts, repeated = _starts(measure)
    real = min(done, len(starts))
    first = min(starts.values(), default=began)
    seconds = (ended - first) / 1e9
    spent = {name: used - services[name] for name, used in _service_seconds(measure).items()}
    return {
        "tasks": count,
        "done_in_store": done,
        "bodies_run": len(starts),
        "repeated": repeated,
        "finished": real >= count,
        "seconds": seconds,
        "per_second": real / seconds,
        "start_seconds": (first - began) / 1e9,
        "worker_cpu_us": _per_task(cpu, real),
        "services_cpu_us": {name: _per_task(used, real) for name, used in spent.items()},
        "peak_mb": peak.bytes / 1e6,
        "proportional_mb": shared / 1e6,
    }


def latency(contestant: Contestant) -> Figures:
    """The worker is idle; a task comes now and then."""
    _warm_up(contestant)
    return _timed(contestant, lambda: None)


def load(contestant: Contestant) -> Figures:
    """The worker is half busy with other tasks while a task comes now and then."""
    measure = contestant.measure
    _warm_up(contestant)
    began, sent = time.monotonic(), 0

    def others() -> None:
        nonlocal sent
        due = int((time.monotonic() - began) * measure.rate) - sent
        if due > 0:
            contestant.fill(due, measure.kind, OTHERS + 1000 + sent)
            sent += due

    figures = _timed(contestant, others)
    return {**figures, "other_tasks": sent, "other_tasks_per_second": sent / (time.monotonic() - began)}


def enqueue(contestant: Contestant) -> Figures:
    """One process enqueues, with no worker, in each of the ways that there are."""
    measure, count = contestant.measure, size(contestant)
    contestant.enqueue(min(20, count), measure.kind, OTHERS)
    ways = {"one by one": lambda count, kind: contestant.enqueue(count, kind), **contestant.ways()}
    return {"ways": {name: _way(contestant, way, count) for name, way in ways.items()}}


def push(contestant: Contestant) -> Figures:
    """A client of the harness's own pushes, in the place of an emulator, so many at a time."""
    if not contestant.push_path:
        raise ValueError("It is not pushed to.")
    measure, count = contestant.measure, size(contestant)
    pid = contestant.start_worker(measure.kind)
    contestant.activate()
    _pushed(contestant, pid, min(count, WARM_UP), 0, max(AT_ONCE))
    ways = {f"{at_once} at a time": _pushed(contestant, pid, count, at_once * OTHERS, at_once) for at_once in AT_ONCE}
    return {"ways": ways, "peak_mb": resident(pid) / 1e6}


def _pushed(contestant: Contestant, pid: int, count: int, start: int, at_once: int) -> Figures:
    measure = contestant.measure
    contestant.fill(count, measure.kind, start)
    messages = pushing.taken(contestant, count, time.monotonic() + measure.limit)
    before, cpu = contestant.completed(), cpu_seconds(pid)
    answers = pushing.push(measure.http_port, contestant.push_path, messages, at_once)
    cpu = cpu_seconds(pid) - cpu
    contestant.check_worker()
    return {
        "tasks": count,
        "found_in_store": contestant.completed() - before,
        "accepted": answers.accepted,
        "per_second": answers.accepted / answers.seconds,
        "worker_cpu_us": _per_task(cpu, answers.accepted),
        **_percentiles("ms", answers.latencies_ms),
    }


def start(contestant: Contestant) -> Figures:
    """One task waits; the worker starts."""
    measure = contestant.measure
    contestant.fill(1, measure.kind)
    began = time.time_ns()
    pid = contestant.start_worker(measure.kind)
    with Peak(pid, 0.05) as peak:
        contestant.activate()
        _await_bodies(contestant, 1, time.monotonic() + measure.limit)
        cpu = cpu_seconds(pid)
        done, _ = contestant.wait(1, measure.kind, time.monotonic() + measure.limit)
        time.sleep(1)  # what it loads after the first task counts, too
        shared, processes = proportional(pid), len(tree(pid))
    starts, _ = _starts(measure)
    return {
        "done_in_store": done,
        "start_seconds": (min(starts.values()) - began) / 1e9,
        "start_cpu_seconds": cpu,
        "idle_mb": peak.bytes / 1e6,
        "idle_proportional_mb": shared / 1e6,
        "processes": processes,
    }


RUN: dict[str, Callable[[Contestant], Figures]] = {
    "drain": drain,
    "io": drain,
    "latency": latency,
    "load": load,
    "enqueue": enqueue,
    "start": start,
    "push": push,
}


def _warm_up(contestant: Contestant) -> None:
    kind, count = contestant.measure.kind, min(20, size(contestant))
    contestant.start_worker(kind)
    contestant.activate()
    contestant.enqueue(count, kind, OTHERS)
    done, _ = contestant.wait(count, kind, time.monotonic() + contestant.measure.limit)
    if done < count:
        raise RuntimeError(f"Warming up: {done} of {count} tasks were done.")
    time.sleep(min(2, size(contestant) * contestant.interval))


def _timed(contestant: Contestant, between: Callable[[], None]) -> Figures:
    """Enqueue a task every so often. Latencies are from the return of the call, and from before it, to the body."""
    kind, count, before, after = contestant.measure.kind, size(contestant), {}, {}
    due = time.monotonic()
    for index in range(count):
        before[index] = time.time_ns()
        contestant.enqueue_one(index, kind)
        after[index] = time.time_ns()
        due += contestant.interval
        while (left := due - time.monotonic()) > 0:
            between()
            time.sleep(min(0.01, max(left, 0)))
    deadline = time.monotonic() + contestant.measure.limit
    starts: dict[int, int] = {}
    while len(starts) < count and time.monotonic() < deadline:
        time.sleep(0.05)
        starts = {index: at for index, at in _starts(contestant.measure)[0].items() if index < OTHERS}
    return {
        "tasks": count,
        "bodies_run": len(starts),
        "interval_seconds": contestant.interval,
        **_percentiles("ms", ((at - after[index]) / 1e6 for index, at in starts.items())),
        **_percentiles("from_call_ms", ((at - before[index]) / 1e6 for index, at in starts.items())),
        **_percentiles("call_ms", ((after[index] - before[index]) / 1e6 for index in after)),
    }


def _way(contestant: Contestant, way: Callable[[int, str], Any], count: int) -> Figures:
    before = contestant.queued()
    gc.collect()  # or one way would pay 50 ms for what those before it have left
    cpu, began = time.process_time(), time.perf_counter()
    done = way(count, contestant.measure.kind) or count
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    found = None
    if before is not None:
        deadline = time.monotonic() + 5
        while (found := (contestant.queued() or 0) - before) < done and time.monotonic() < deadline:
            time.sleep(0.05)
    return {"tasks": done, "found_in_store": found, "per_second": done / seconds, "cpu_us": _per_task(cpu, done)}


def _await_bodies(contestant: Contestant, count: int, deadline: float) -> None:
    record = Path(contestant.measure.record)
    while bodies.count(record) < count:
        contestant.check_worker()
        if time.monotonic() > deadline:
            raise TimeoutError(f"No task began within {contestant.measure.limit:g} seconds.")
        time.sleep(0.002)


def _starts(measure: Measure) -> tuple[dict[int, int], int]:
    """When the body of each task began first, and how often bodies ran again."""
    starts: dict[int, int] = {}
    began = 0
    for index, at, phase in bodies.read(Path(measure.record)):
        if phase == 0:
            began += 1
            starts[index] = min(at, starts.get(index, at))
    return starts, began - len(starts)


def _percentiles(name: str, values: Iterable[float]) -> Figures:
    ordered = sorted(values)
    last = len(ordered) - 1
    return {f"p{q}_{name}": ordered[round(q / 100 * last)] if ordered else None for q in PERCENTILES}


def _per_task(seconds: float, tasks: int) -> float | None:
    return seconds * 1e6 / tasks if tasks else None


def _service_seconds(measure: Measure) -> dict[str, float]:
    return {name: cpu_seconds(pid) for name, pid in measure.services.pids.items()}

"""Counts the events of this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from ...store.states import LOST_CLASS
from ...telemetry import Event, subscribe

REGISTRY = CollectorRegistry()
"""The counters of this process."""
MOST_VALUES = 1000
"""Most values of a label. Names come from rows, and a row may hold any name; further ones are counted together."""
OTHER = "(other)"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
LATE_SECONDS = (1, 2, 5, 10, 30, 60, 120, 300, 900, 3600, 14_400)

_counter = partial(Counter, registry=REGISTRY)
_histogram = partial(Histogram, registry=REGISTRY)

ENQUEUED = _counter("i3tasks_executions_enqueued_total", "Calls that were written and committed.", ["task", "queue"])
STARTED = _counter("i3tasks_tries_started_total", "Tries whose body was begun.", ["task", "queue"])
FINISHED = _counter(
    "i3tasks_executions_total", "Executions that ended, by outcome: success, failed or cancelled.",
    ["task", "queue", "outcome"],
)  # fmt: skip
RETRIED = _counter("i3tasks_tries_retried_total", "Tries that failed and that another one follows.", ["task", "queue"])
LOST = _counter("i3tasks_tries_lost_total", "Tries that ended with their worker.", ["task", "queue"])
EXPIRED = _counter("i3tasks_leases_expired_total", "Leases that ran out, ended by this process's dispatcher.")
REFUSED = _counter("i3tasks_tries_refused_total", "Messages for tries taken, over, not due or locked.", ["reason"])
DENIED = _counter("i3tasks_requests_denied_total", "Requests that could not be verified.", ["endpoint", "reason"])
DURATION = _histogram("i3tasks_try_duration_seconds", "How long bodies ran.", ["task", "queue"], buckets=SECONDS)
WAIT = _histogram(
    "i3tasks_try_wait_seconds", "How long tries waited for their start, from when they became due.", ["queue"],
    buckets=SECONDS,
)  # fmt: skip
LATENESS = _histogram(
    "i3tasks_schedule_lateness_seconds", "How long after its time a slot was enqueued.", ["schedule"],
    buckets=LATE_SECONDS,
)  # fmt: skip

Facts = Mapping[str, Any]


class _Child:
    """The children of a metric by their labels' values. Looking one up in a dict is faster than `labels`."""

    def __init__(self, metric: Any, *labels: str) -> None:
        self._metric = metric
        self._labels = labels
        self._seen: list[set[str]] = [set() for _ in labels]
        self._children: dict[tuple[Any, ...], Any] = {}

    def of(self, facts: Facts, *more: str) -> Any:
        key = (*(facts[label] for label in self._labels), *more)
        child = self._children.get(key)
        return self._new(key) if child is None else child

    def _new(self, key: tuple[Any, ...]) -> Any:
        values = [*map(_bounded, self._seen, map(str, key)), *map(str, key[len(self._seen) :])]
        child = self._metric.labels(*values)
        if OTHER not in values:
            self._children[key] = child
        return child


def _bounded(seen: set[str], value: str) -> str:
    if value not in seen and len(seen) >= MOST_VALUES:
        return OTHER
    seen.add(value)
    return value


_enqueued = _Child(ENQUEUED, "task", "queue")
_started = _Child(STARTED, "task", "queue")
_finished = _Child(FINISHED, "task", "queue")
_retried = _Child(RETRIED, "task", "queue")
_lost = _Child(LOST, "task", "queue")
_duration = _Child(DURATION, "task", "queue")
_wait = _Child(WAIT, "queue")
_lateness = _Child(LATENESS, "schedule")


def _on_enqueued(event: Event, facts: Facts) -> None:
    _enqueued.of(facts).inc()


def _on_started(event: Event, facts: Facts) -> None:
    _started.of(facts).inc()
    _wait.of(facts).observe(facts["queue_time"])


def _ended(outcome: str, facts: Facts) -> None:
    _finished.of(facts, outcome).inc()
    _ran(facts)


def _ran(facts: Facts) -> None:
    if "duration" in facts:  # one that was cancelled before it ran has none
        _duration.of(facts).observe(facts["duration"])
    if facts.get("error_class") == LOST_CLASS:
        _lost.of(facts).inc()


def _on_succeeded(event: Event, facts: Facts) -> None:
    _ended("success", facts)


def _on_failed(event: Event, facts: Facts) -> None:
    _ended("failed", facts)


def _on_cancelled(event: Event, facts: Facts) -> None:
    _ended("cancelled", facts)


def _on_retried(event: Event, facts: Facts) -> None:
    _retried.of(facts).inc()
    _ran(facts)


def _on_expired(event: Event, facts: Facts) -> None:
    EXPIRED.inc(len(facts["tries"]))


def _on_refused(event: Event, facts: Facts) -> None:
    REFUSED.labels(facts["reason"]).inc()


def _on_denied(event: Event, facts: Facts) -> None:
    path = facts["path"].rstrip("/")
    endpoint = next((name for name in ("push", "beat") if path.endswith(f"tasks-{name}")), OTHER)
    DENIED.labels(endpoint, facts["reason"]).inc()


def _on_ticked(event: Event, facts: Facts) -> None:
    _lateness.of(facts).observe(facts["lateness"])


_CONSUMERS: dict[str, Callable[[Event, Facts], None]] = {
    "execution_enqueued": _on_enqueued,
    "try_started": _on_started,
    "try_succeeded": _on_succeeded,
    "try_failed": _on_retried,
    "execution_failed": _on_failed,
    "execution_cancelled": _on_cancelled,
    "tries_lost": _on_expired,
    "try_refused": _on_refused,
    "request_denied": _on_denied,
    "schedule_ticked": _on_ticked,
}
_stops: list[Callable[[], None]] = []


def count_events() -> None:
    """Count the events of this process from now on. A second call changes nothing."""
    if not _stops:
        _stops.extend(subscribe(consumer, [name]) for name, consumer in _CONSUMERS.items())


def stop_counting() -> None:
    """Count no more."""
    while _stops:
        _stops.pop()()

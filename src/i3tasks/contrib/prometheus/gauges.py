"""The figures of the rows, as gauges: they hold for all processes, and each process that is asked gives the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.db import DatabaseError, InterfaceError
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from ...core.clock import current_clock
from ...store.figures import Figures, figures

CACHED_SECONDS = 5.0
"""Seconds for which an answer is reused, so that many requests cost one query of the database."""


class RowGauges:
    """Reads the figures when it is asked, at most every CACHED_SECONDS."""

    def __init__(self, read: Callable[[Any], Figures] = figures) -> None:
        self._read = read
        self._lock = threading.Lock()  # a request that comes while the figures are read waits for them
        self._read_at = float("-inf")
        self._figures: Figures | None = None

    def collect(self) -> Iterator[Metric]:
        """The gauges. Without an answer of the database, `i3tasks_database_up` is 0 and the others are missing."""
        with self._lock:
            clock = current_clock()
            if clock.monotonic() - self._read_at >= CACHED_SECONDS:
                self._figures = self._read_or_none()
                self._read_at = clock.monotonic()
            found = self._figures
        yield _gauge("database_up", "Whether the database answered.", 0 if found is None else 1)
        if found is not None:
            yield from _gauges(found)

    def _read_or_none(self) -> Figures | None:
        try:
            return self._read(current_clock().now())
        except (DatabaseError, InterfaceError):
            return None


def _gauges(found: Figures) -> Iterator[Metric]:
    yield _by(
        "queue_tries", "Tries that wait for a worker, run, or are put off to later.", ("queue", "state"), found.tries
    )
    yield _by(
        "queue_oldest_waiting_seconds",
        "How long the first waiting try of the queue has waited since it became due; 0 when none waits.",
        ("queue",),
        {(queue,): age for queue, age in found.oldest_waiting.items()},
    )
    yield _by(
        "queue_workers",
        "Living processes that run the queue and are not draining.",
        ("queue",),
        {(queue,): count for queue, count in found.queue_workers.items()},
    )
    yield _by(
        "queue_paused",
        "1 when the queue is paused, so that none of its tries begins; else 0.",
        ("queue",),
        {(queue,): int(queue in found.paused) for queue in found.queue_workers},
    )
    yield _by("workers", "Living processes by role and state.", ("role", "state"), found.workers)
    yield _gauge("worker_slots", "How many tries the living processes can run at a time.", found.slots)
    yield _gauge("worker_slots_busy", "How many they ran at their last heartbeats.", found.busy)
    yield _gauge("outbox_unpublished", "Tries that are due to be published and never were.", found.unpublished)
    yield _gauge("outbox_oldest_seconds", "How long the first of them has been due.", found.oldest_unpublished)
    yield _gauge("counts_cut", "1 when a state has more rows than are counted, else 0.", int(found.is_cut))
    for name, instant in (("dispatch", found.dispatched_at), ("beat", found.beat_at)):
        if instant is not None:
            said = f"When a {name} of any process last got through, in seconds since 1970."
            yield _gauge(f"last_{name}_timestamp_seconds", said, instant.timestamp())


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"i3tasks_{name}", text, value=value)


def _by(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(f"i3tasks_{name}", text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


GAUGES = RowGauges()

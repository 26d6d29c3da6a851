"""Writes counters and gauges in the format that Prometheus reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Metric, multiprocess
from prometheus_client.exposition import choose_encoder

from .counters import REGISTRY
from .gauges import GAUGES

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""With it, prometheus_client keeps the counters of a web server's processes in files, and each process adds them up."""


def rendered(accept: str = "") -> tuple[bytes, str]:
    """The metrics, and their content type, in the format that the request's `Accept` header asks for."""
    encode, content_type = choose_encoder(accept)
    return encode(_Both()), content_type


class _Both:
    """A registry, as far as an encoder needs one, of counters and gauges together."""

    def collect(self) -> Iterator[Metric]:
        yield from GAUGES.collect()
        yield from _counters().collect()


def _counters() -> Any:
    if SHARED_FOLDER not in os.environ:
        return REGISTRY
    together = CollectorRegistry()
    read_files: Any = multiprocess.MultiProcessCollector
    read_files(together)
    return _OfOurs(together)


class _OfOurs:
    """Passes on the metrics of i3tasks only: the folder has those of the whole project."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        return (metric for metric in self._registry.collect() if metric.name.startswith("i3tasks_"))

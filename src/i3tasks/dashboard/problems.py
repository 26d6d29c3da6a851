"""The problems that health finds, each with the page on which to look at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .places import link

_PAGES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("tries running for more", "executions", {"state": "running"}),
    ("oldest pending", "executions", {"state": "waiting,retrying"}),
    ("failed tries", "executions", {"state": "failed,retrying"}),
    ("leases of lost workers", "executions", {"state": "lost"}),
    ("to be published again", "executions", {"state": "waiting,retrying"}),
    ("has not been published", "executions", {"state": "waiting,retrying"}),
    ("groups wait", "groups", {}),
    ("schedule", "schedules", {}),
    ("slot", "schedules", {}),
    ("queue", "queues", {}),
    ("broker", "workers", {}),
    ("worker", "workers", {}),
    ("dispatcher", "workers", {}),
)
"""Words of a problem, the first that it has counting, and the page."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A sentence of health, and where to look; "" where no page shows more."""

    text: str
    url: str


def problems_of(report: dict[str, Any]) -> list[Problem]:
    """The problems of a report of health."""
    return [Problem(text, _url(text)) for text in report["problems"]]


def _url(text: str) -> str:
    return next((link(name, **query) for words, name, query in _PAGES if words in text), "")

"""The first page: waiting, running and failed tries, throughput, problems, workers, and the next slots of schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from asgiref.sync import async_to_sync
from django.http import HttpRequest, HttpResponse

from ..broker.publisher import get_publisher
from ..core.clock import current_clock
from ..exceptions import ScheduleError
from ..store.deploys import deploys_since
from ..store.figures import DEFERRED, MOST_COUNTED, RUNNING, WAITING, Figures, figures
from ..store.health import health
from ..store.schedules import KnownSchedule, known_schedules
from ..store.throughput import Bucket, Recent, failures, recent
from ..store.workers import living_workers
from . import charts
from .access import board_page
from .deploys import marks
from .places import link
from .problems import problems_of
from .rendering import page
from .writing import rate, span

MOST_WORKERS = 8
MOST_SCHEDULES = 200
"""Most schedules whose next slots are computed: each costs some 100 microseconds."""
MOST_COMING = 6
WINDOWS = {"1 h": timedelta(hours=1), "24 h": timedelta(hours=24), "7 d": timedelta(days=7)}


@dataclass(frozen=True, slots=True)
class Figure:
    """A number at the top of the page. `query` leads to the executions that it counts."""

    label: str
    number: str
    query: Mapping[str, str]
    is_bad: bool = False

    @property
    def url(self) -> str:
        return link("executions", **self.query)


@dataclass(frozen=True, slots=True)
class Coming:
    """A slot to come."""

    at: datetime
    schedule: KnownSchedule


@board_page
def overview(request: HttpRequest) -> HttpResponse:
    """Show the state of the task system."""
    now = current_clock().now()
    found = figures(now)
    lately = recent(now)
    failed = failures(now, list(WINDOWS.values()))
    report: dict[str, Any] = async_to_sync(health)(now, broker_trouble=get_publisher().trouble)
    since = now - timedelta(seconds=lately.seconds)
    deploys = marks(deploys_since(since), since, now)
    workers = list(living_workers(now)[: MOST_WORKERS + 1])
    return page(
        request,
        "overview",
        "overview",
        figures=[*_figures(found), *_failed(failed)],
        status_word=report["status"],
        problems=problems_of(report),
        recent=lately,
        rate=_rate(lately),
        throughput=_throughput(lately, deploys),
        waits=_waits(lately, deploys),
        deploys=deploys,
        failing=failed[1].tasks,
        workers=workers[:MOST_WORKERS],
        has_more_workers=len(workers) > MOST_WORKERS,
        busy=found.busy,
        slots=found.slots,
        coming=coming(now),
    )


def coming(now: datetime) -> list[Coming]:
    """The next slots of enabled schedules, of each its first."""
    slots = []
    for schedule in islice((item for item in known_schedules() if item.enabled), MOST_SCHEDULES):
        try:
            at = schedule.crontab().next(now)
        except ScheduleError:
            continue  # health reports it
        if at is not None:
            slots.append(Coming(at, schedule))
    return sorted(slots, key=lambda slot: slot.at)[:MOST_COMING]


def _figures(found: Figures) -> list[Figure]:
    totals: dict[str, int] = dict.fromkeys((WAITING, RUNNING, DEFERRED), 0)
    for (_, state), count in found.tries.items():
        totals[state] += count
    oldest = max(found.oldest_waiting.values(), default=0.0)
    return [
        Figure("waiting", _counted(totals[WAITING], found), {"state": "waiting,retrying"}),
        Figure("waits longest", span(oldest) if totals[WAITING] else "-", {"state": "waiting,retrying"}),
        Figure("running", _counted(totals[RUNNING], found), {"state": "running"}),
        Figure("put off", _counted(totals[DEFERRED], found), {"state": "deferred,retrying"}),
    ]


def _failed(failed: Sequence[Any]) -> list[Figure]:
    return [
        Figure(
            f"failed in {label}",
            f"{one.number:,}{'+' * one.is_cut}",
            {"state": "failed", "finished": label.replace(" ", "")},
            is_bad=one.number > 0,
        )
        for label, one in zip(WINDOWS, failed, strict=True)
    ]


def _counted(number: int, found: Figures) -> str:
    return f"{MOST_COUNTED:,}+" if found.is_cut and number > MOST_COUNTED else f"{number:,}"


def _rate(lately: Recent) -> str:
    return rate(lately.per_second)


def _ends(lately: Recent) -> tuple[str, str]:
    return f"{span(lately.seconds)} ago", "now"


def _throughput(lately: Recent, deploys: Sequence[charts.Mark]) -> Any:
    said = (
        f"{lately.ended:,} tries ended in the last {span(lately.seconds)}, {lately.failed:,} of which failed: "
        f"{_rate(lately)}."
    )
    stacks = [(bucket.succeeded, bucket.failed) for bucket in lately.buckets]
    titles = [_title(bucket) for bucket in lately.buckets]
    return charts.bars(stacks, ("good", "poor"), said=said, ends=_ends(lately), titles=titles, marks=deploys)


def _title(bucket: Bucket) -> str:
    return f"{bucket.succeeded:,} succeeded, {bucket.failed:,} failed"


def _waits(lately: Recent, deploys: Sequence[charts.Mark]) -> Any:
    longest = lately.longest_wait
    said = "Nothing has begun lately." if longest is None else f"Tries waited {span(longest)} at most."
    stacks = [(bucket.wait or 0.0,) for bucket in lately.buckets]
    titles = [span(bucket.wait) for bucket in lately.buckets]
    return charts.bars(stacks, ("plain",), said=said, ends=_ends(lately), titles=titles, unit=" s", marks=deploys)

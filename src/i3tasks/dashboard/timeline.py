"""The timeline of an execution's tries: when each was asked for, due, begun and ended, and how long that took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from ..conf import get_config
from ..models import TaskExecutionTry, TryState
from ..store.pauses import is_aside
from .lines import duration_of, wait_of
from .writing import span

WIDTH, ROW, LEFT = 760, 26, 60
SMALLEST = 3.0
"""The width of the shortest bar."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened to a try, or is to come, and how long after the moment before."""

    word: str
    at: datetime | None
    after: timedelta | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try with its moments."""

    row: TaskExecutionTry
    state: str
    wait: timedelta | None
    duration: timedelta | None
    moments: tuple[Moment, ...]
    result: str = ""
    text_of: str = ""


def attempt(one: TaskExecutionTry, now: datetime, *, state: str, result: str = "", text_of: str = "") -> Attempt:
    """A try with its moments in the order of time."""
    moments: list[Moment] = []
    for word, at, note in _happened(one, now):
        before = next((moment.at for moment in reversed(moments) if moment.at is not None), None)
        after = at - before if at is not None and before is not None and at >= before else None
        moments.append(Moment(word, at, after, note))
    return Attempt(one, state, wait_of(one, now), duration_of(one, now), tuple(moments), result, text_of)


def _happened(one: TaskExecutionTry, now: datetime) -> Iterator[tuple[str, datetime | None, str]]:
    yield "asked for", one.asked_at, ""
    if one.run_after is not None:
        yield "due", one.run_after, "put off until then" if one.run_after > now else ""
    if one.publish_count:
        yield "published", None, "once" if one.publish_count == 1 else f"{one.publish_count} times"
    if one.started_at is not None:
        yield "begun", one.started_at, f"by {one.worker_id}" if one.worker_id else ""
    if one.lease_until is not None:
        # Each heartbeat moves the lease on by its whole length.
        beat = one.lease_until - timedelta(seconds=get_config().settings.lease_seconds)
        note = "the lease has run out: the worker is gone" if one.lease_until < now else ""
        yield "last heartbeat", max(beat, one.started_at or beat), note
    if one.finished_at is not None:
        yield "ended", one.finished_at, ""
    elif TryState.of(one) is TryState.PENDING and one.dispatch_at is not None:
        if is_aside(one):
            yield "set aside", None, "until its queue is resumed"
            return
        again = "published again, unless it has begun" if one.publish_count else "to be published"
        yield again, one.dispatch_at, ""


def chart(attempts: Sequence[Attempt], now: datetime) -> SafeString:
    """A bar for each try: its wait, then its run, on one scale of time."""
    start = min(one.row.asked_at for one in attempts)
    end = max([now if one.row.finished_at is None else one.row.finished_at for one in attempts])
    total = max((end - start).total_seconds(), 0.001)

    def x(at: datetime) -> float:
        return LEFT + (WIDTH - LEFT - 4) * min(max((at - start).total_seconds() / total, 0.0), 1.0)

    bars = []
    for number, one in enumerate(attempts):
        y = number * ROW + 6
        due = max(one.row.run_after or one.row.asked_at, one.row.asked_at)
        begun = one.row.started_at or one.row.finished_at or now
        parts = [("put-off", one.row.asked_at, min(due, end), "put off"), ("waited", min(due, end), begun, "waited")]
        if one.row.started_at is not None:
            parts.append((f"ran is-{one.state}", begun, one.row.finished_at or now, one.state))
        for kind, first, last, word in parts:
            if last > first or kind.startswith("ran"):
                wide = max(x(last) - x(first), SMALLEST if kind.startswith("ran") else 0.0)
                title = f"try {one.row.try_number}: {word}, {span(last - first)}"
                left = min(x(first), WIDTH - SMALLEST)
                bars.append((kind, f"{left:.1f}", y, f"{wide:.1f}", ROW - 12, title))
    said = "; ".join(f"try {one.row.try_number} {one.state}" for one in attempts)
    labels = [(number * ROW + 18, f"try {one.row.try_number}") for number, one in enumerate(attempts)]
    height = len(attempts) * ROW + 22
    return format_html(
        '<svg class="chart gantt" viewBox="0 0 {w} {h}" role="img" aria-label="{said}">{bars}{labels}'
        '<text x="{left}" y="{foot}">0</text><text x="{w}" y="{foot}" text-anchor="end">{total}</text></svg>',
        w=WIDTH,
        h=height,
        said=said,
        bars=format_html_join(
            "", '<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="3"><title>{}</title></rect>', bars
        ),
        labels=format_html_join("", '<text x="0" y="{}">{}</text>', labels),
        left=LEFT,
        foot=height - 5,
        total=span(total),
    )

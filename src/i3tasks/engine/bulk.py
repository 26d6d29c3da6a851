"""Acts on all executions that a search finds, and launches the tries that follow; one event at the end reports it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ..core.clock import current_clock
from ..store.bulk import SLICE, Act, Slice, slices
from ..store.search import Search
from ..store.search_terms import Keys
from ..telemetry import emit
from .launch import launch


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of an act: how many executions it was done to, how many were skipped and why, and where to go on."""

    done: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    place: str = ""


def act_on_all(
    search: Search,
    act: Act,
    *,
    by: str = "",
    until: datetime | None = None,
    after: str = "",
    size: int = SLICE,
) -> Iterator[Progress]:
    """Act on all executions that match, one transaction for each slice. Yields the progress after each slice.

    `by` says who does it, for the event. PUT_OFF needs `until`. Raises StoreUnavailable or DatabaseError when the
    database is gone: the slices before that are done, and `after` with the last `place` goes on from there.
    """
    progress = Progress()
    try:
        for made in slices(search, act, now=current_clock().now(), until=until, after=after, size=size):
            progress = _launched(made, progress)
            yield progress
    finally:
        _report(act, str(search), by, progress)


def act_on_named(ids: Sequence[int], act: Act, *, by: str = "") -> Progress:
    """Act on these executions, however many, one transaction for each slice. One event reports them all."""
    progress, now = Progress(), current_clock().now()
    try:
        for first in range(0, len(ids), SLICE):
            search = Search(keys=Keys(ids=tuple(ids[first : first + SLICE])))
            for made in slices(search, act, now=now):
                progress = _launched(made, progress)
    finally:
        _report(act, f"{len(ids)} by id", by, progress)
    return progress


def _launched(made: Slice, progress: Progress) -> Progress:
    launch(made.tries)
    return Progress(progress.done + len(made.done), progress.skipped + made.skipped, made.place)


def _report(act: Act, described: str, by: str, progress: Progress) -> None:
    skipped = dict(progress.skipped)
    emit("executions_acted_on", act=act.value, filter=described, by=by, done=progress.done, skipped=skipped)

"""Acts on all executions that a search finds, and launches what follows; reports who did what, once it is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from ..core.clock import current_clock
from ..store.bulk import SLICE, Act, slices
from ..store.search import Search
from ..telemetry import emit
from .launch import launch


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it has come: how many it was done to, how many were skipped and why, and where to go on."""

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
    """Do it to all that match, a transaction for each slice; yields how far it has come after each.

    `by` says who does it, for the event. PUT_OFF needs `until`. Raises StoreUnavailable or DatabaseError when the
    database is gone: the slices before that are done, and `after` with the last `place` goes on from there.
    """
    progress = Progress()
    try:
        for made in slices(search, act, now=current_clock().now(), until=until, after=after, size=size):
            launch(made.tries)
            skipped = progress.skipped + made.skipped
            progress = Progress(progress.done + len(made.done), skipped, made.place)
            yield progress
    finally:
        emit(
            "executions_acted_on",
            act=act.value,
            filter=str(search),
            by=by,
            done=progress.done,
            skipped=dict(progress.skipped),
        )

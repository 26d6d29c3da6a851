"""Carries out what people do on the board: some slices at a time, in a request or between a dispatcher's passes."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from ..core.clock import SYSTEM_CLOCK, Clock, current_clock
from ..exceptions import SearchError
from ..models import BoardAct
from ..store import board_acts as store
from ..store.board_acts import let_go, note, renew, take
from ..store.database import alias
from ..telemetry import emit
from .launch import launch

if TYPE_CHECKING:
    from ..store.search import Search


def advance(act_id: int | None = None, *, seconds: float, clock: Clock = SYSTEM_CLOCK) -> BoardAct | None:
    """Go on with this act, or the oldest unfinished one, for `seconds`. None: it is finished, or held elsewhere."""
    row = take(act_id, clock.now())
    if row is None:
        return None
    from ..store.bulk import SLICE, Act, ActTaken, slices  # late: most workers never find an act

    end = clock.monotonic() + seconds
    now = clock.now()
    search = _search(row, now)
    work = slices(
        search, Act(row.act), now=now, until=row.until, after=row.place, size=SLICE,
        record=lambda made: note(row, made, clock.now()),
    )  # fmt: skip
    with suppress(ActTaken):
        for made in work:
            launch(made.tries)
            if not renew(row, clock.now()):
                return row
            if clock.monotonic() >= end:
                let_go(row, clock.now(), is_finished=False)
                return row
        if let_go(row, clock.now(), is_finished=True):
            _report(row, search)
        return row
    row.refresh_from_db(using=alias())
    return row


def stop(act_id: int, *, by: str) -> BoardAct | None:
    """End an act that is under way; what it has done stays done. None: there is none to stop."""
    now = current_clock().now()
    row = store.stop(act_id, by=by, now=now)
    if row is not None:
        _report(row, _search(row, now))
    return row


def _report(row: BoardAct, search: Search) -> None:
    skipped = dict(row.skipped)
    emit("executions_acted_on", act=row.act, filter=str(search), by=row.by, done=row.done, skipped=skipped)


def _search(row: BoardAct, now: datetime) -> Search:
    """The search that the row's filter describes. A filter that can no longer be read finds nothing."""
    from ..store.search import Search

    try:
        return Search.parse(row.filter, now)
    except SearchError as error:
        emit("internal_error", where=f"board act {row.pk}", error=str(error), exc_info=error)
        return Search.parse({"id": "0"}, now)

"""The rows of what people do on the board: who did what to which executions, and how far it has come.

A web process or a dispatcher that has time takes such a row for a while, and acts on some slices. Each slice's own
transaction notes how far it is, so an act goes on just there when the process that had it is gone.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db.models import F, Q

from ..models import BoardAct
from .database import Rows, alias, atomic, locked, rows, unlocked

if TYPE_CHECKING:
    from .bulk import Act, Slice  # late at run time: dispatchers that find no act need neither this nor the search
    from .search import Search

LEASE = timedelta(seconds=30)
"""A slice takes a fraction of a second; one that waits for the locks of others, several."""
KEPT = timedelta(days=90)


def begin(search: Search, act: Act, *, by: str, expected: int, until: datetime | None, now: datetime) -> BoardAct:
    """Write down what is to be done. Finished acts that are older than KEPT are deleted."""
    with atomic():
        old = unlocked(rows(BoardAct).filter(finished_at__lt=now - KEPT).order_by("pk").only("pk"), to_delete=True)
        rows(BoardAct).filter(pk__in=[row.pk for row in old]).delete()
        return rows(BoardAct).create(
            act=act.value, filter=search.as_fields(), by=by[:255], expected=expected, until=until
        )


def take(act_id: int | None, now: datetime) -> BoardAct | None:
    """Take this act for a while, or the oldest unfinished one. None: it is finished, or another process has it."""
    free = rows(BoardAct).filter(Q(lease_until__isnull=True) | Q(lease_until__lt=now), finished_at__isnull=True)
    free = free.order_by("pk") if act_id is None else free.filter(pk=act_id)
    if not free.exists():
        return None
    with atomic():
        found: list[BoardAct] = unlocked(free[:1])
        for row in found:
            row.lease_until = now + LEASE
            rows(BoardAct).filter(pk=row.pk).update(lease_until=row.lease_until, updated_at=now)
            return row
    return None  # another transaction has locked it


def note(row: BoardAct, made: Slice, now: datetime) -> None:
    """Add what a slice comes to, in its transaction. Raises ActTaken if the act is not ours any more.

    `row` stays as it is, for the transaction may fail at its end: `renew` reads what has come of it.
    """
    from .bulk import ActTaken

    held = locked(_held(row), wait=True).first()
    if held is None:
        raise ActTaken
    skipped = dict(Counter(held.skipped) + made.skipped)
    done = held.done + len(made.done)
    rows(BoardAct).filter(pk=row.pk).update(done=done, skipped=skipped, place=made.place, updated_at=now)


def renew(row: BoardAct, now: datetime) -> bool:
    """Keep the row for longer, and read how far the act is. False: it is not ours any more."""
    is_ours = bool(_held(row).update(lease_until=now + LEASE))
    row.refresh_from_db(using=alias())
    return is_ours


def let_go(row: BoardAct, now: datetime, *, is_finished: bool) -> bool:
    """Give the row back, for the next process to go on with, and read how far the act is. False: it is not ours."""
    finished_at = now if is_finished else None
    is_ours = bool(_held(row).update(lease_until=None, finished_at=finished_at, updated_at=F("updated_at")))
    row.refresh_from_db(using=alias())
    return is_ours


def stop(act_id: int, *, by: str, now: datetime) -> BoardAct | None:
    """End an act that is under way: the slice being written is undone, or the last. None: there is none to stop."""
    with atomic():
        row: BoardAct | None = locked(rows(BoardAct).filter(pk=act_id, finished_at__isnull=True), wait=True).first()
        if row is None:
            return None
        left = max(row.expected - row.done - sum(row.skipped.values()), 0)
        row.skipped = {**row.skipped, f"stopped by {by}": left}
        row.finished_at, row.lease_until = now, None
        row.save(using=alias(), update_fields=["skipped", "finished_at", "lease_until", "updated_at"])
        return row


def _held(row: BoardAct) -> Rows:
    """The row, if it is still ours."""
    return rows(BoardAct).filter(pk=row.pk, lease_until=row.lease_until, finished_at__isnull=True)

"""The stacks of running tries: asked for by people, noticed by heartbeats, and kept for a day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..conf import get_config
from ..core.text import clean_text
from ..models import StackRequest, TaskExecutionTry, TryState
from .database import DATABASE_TIME, Instant, atomic, rows, unlocked
from .lock_timeout import LONGEST_LOCK, short_locks

KEPT = timedelta(days=1)
LONGEST_TEXT = 20_000
MOST_ASKED = 100
LONGEST_BY = 255
BUSY = "It was not asked for: another transaction holds the row of an earlier request. Try again."
NOT_TOLD = "Its process could not tell: the body had not begun, or was about to end."


@dataclass(frozen=True, slots=True)
class TakenStack:
    """The stack that a worker has taken, as text."""

    try_id: int
    text: str


def ask(try_id: int, *, by: str, now: datetime) -> None:
    """Ask for the stack of this try. One that was taken before is forgotten, and so are those older than KEPT.

    Raises StoreUnavailable if another transaction holds such a row.
    """
    facts = {"asked_at": now, "asked_by": clean_text(by)[:LONGEST_BY], "taken_at": None, "stack": ""}
    with short_locks(LONGEST_LOCK, BUSY):
        old = unlocked(rows(StackRequest).filter(asked_at__lt=now - KEPT).order_by("pk").only("pk"), to_delete=True)
        rows(StackRequest).filter(pk__in=[row.pk for row in old]).delete()
        rows(StackRequest).update_or_create(try_id=try_id, defaults=facts)


def asked_for() -> frozenset[int]:
    """The tries whose stack was asked for and has not come: the newest requests."""
    waiting = rows(StackRequest).filter(taken_at__isnull=True).order_by("-asked_at")
    return frozenset(waiting.values_list("try_id", flat=True)[:MOST_ASKED])


def note_stacks(requests: Sequence[TakenStack], *, now: Instant = DATABASE_TIME, wait: bool = False) -> list[None]:
    """Write the stacks that were taken, each where it is still asked for.

    A row that another transaction holds is left alone: the next heartbeat hears of it again.
    """
    with atomic():
        for taken in requests:
            text = clean_text(taken.text)[-LONGEST_TEXT:]
            for row in unlocked(rows(StackRequest).filter(try_id=taken.try_id, taken_at__isnull=True)):
                rows(StackRequest).filter(pk=row.pk).update(stack=text, taken_at=now)
    return [None] * len(requests)


def request_of(task_try: TaskExecutionTry) -> StackRequest | None:
    """The request for this try's stack, with the stack if it has come."""
    return rows(StackRequest).filter(pk=task_try.pk).first()


def why_not(request: StackRequest, task_try: TaskExecutionTry, now: datetime) -> str:
    """The reason why there is no stack yet; "" if there is one."""
    if request.taken_at is not None:
        return "" if request.stack else NOT_TOLD
    if TryState.of(task_try) is not TryState.RUNNING:
        return "None was taken: the try has ended before its worker's next heartbeat."
    if task_try.lease_until is not None and task_try.lease_until < now:
        return "None comes: the worker is gone, its lease has run out."
    every = get_config().settings.heartbeat_seconds
    if (now - request.asked_at).total_seconds() > 3 * every:
        return "None has come yet: the worker is of an older release, or its database connection is slow."
    return f"It comes with the worker's next heartbeat, within {every:g} s."

"""Paused queues: none of their tries begins, and waiting tries are set aside until the queues are resumed.

A queue is paused while it has a row. The claim looks for that row in its own statement, so that nothing begins once
`pause` is committed. A try that would have been run or published is set aside: its `dispatch_at` becomes an instant far
in the future that belongs to this pause alone. When the row is gone, each pass of a dispatcher makes some of the tries
that were set aside under it due; so a try that is set aside at the very moment of resuming comes back, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from django.db import transaction
from django.db.models import OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce, NullIf

from ..conf import get_config, queue_or_default
from ..core.text import clean_text
from ..models import QueuePause, TaskExecutionTry
from ..telemetry import emit
from .database import DATABASE_TIME, Instant, Rows, alias, atomic, database_time, rows, unlocked, with_database_time
from .lock_timeout import LONGEST_LOCK, short_locks
from .taking import Waiting

ASIDE_FROM = datetime(9000, 1, 1, tzinfo=UTC)
"""From here on, a `dispatch_at` stands for a pause. No call is put off so far."""
_IS_NO_TIME = Q(run_after__isnull=True) | Q(run_after__lt=ASIDE_FROM)
"""Rows of earlier releases may be put off beyond ASIDE_FROM: then that is when they are due."""
STALE_SECONDS = 2.0
"""The greatest age of a process's knowledge of pauses, after which it reads them again."""
LONGEST_BY = 255
BUSY = "Nothing was changed: another transaction holds the pause of this queue. Try again."


def pause(queue_name: str | None, *, by: str = "", now: Instant = DATABASE_TIME) -> bool:
    """Pause a queue. `by` says who did. False: it was paused already.

    Raises UnknownQueueError for a queue that is not in I3TASKS, and StoreUnavailable if another transaction holds its
    pause.
    """
    name = get_config().queue(queue_name).name
    who = clean_text(by)[:LONGEST_BY]
    with short_locks(LONGEST_LOCK, BUSY):
        facts = {"paused_at": now, "paused_by": who}
        _, is_new = rows(QueuePause).get_or_create(queue_name=name, defaults=facts)
        if is_new:
            _after_commit(lambda: emit("queue_paused", queue=name, by=who))
    return is_new


def resume(queue_name: str | None, *, by: str = "") -> bool:
    """Resume a queue: dispatchers make its waiting tries due at once. False: it was not paused.

    Raises UnknownQueueError for a queue that is neither paused nor in I3TASKS, and StoreUnavailable if another
    transaction holds its pause.
    """
    name = queue_name or get_config().queue(None).name
    if name not in paused_queues():
        get_config().queue(name)
        return False
    with short_locks(LONGEST_LOCK, BUSY):
        is_resumed = bool(rows(QueuePause).filter(queue_name=name).delete()[0])
        if is_resumed:
            _after_commit(lambda: emit("queue_resumed", queue=name, by=clean_text(by)[:LONGEST_BY]))
    return is_resumed


def paused_queues() -> dict[str, int]:
    """The ids of the pauses that are on, by the names of their queues."""
    return dict(rows(QueuePause).values_list("queue_name", "pk"))


def aside_until(pause_id: int) -> datetime:
    """The `dispatch_at` of tries that are set aside under this pause."""
    return ASIDE_FROM + timedelta(microseconds=pause_id)


def is_aside(task_try: TaskExecutionTry) -> bool:
    """Whether the try waits for the end of a pause."""
    is_far_off = task_try.run_after is not None and task_try.run_after >= ASIDE_FROM
    return task_try.dispatch_at is not None and task_try.dispatch_at >= ASIDE_FROM and not is_far_off


def pause_of(queue_name: str) -> Subquery:
    """The id of the pause that the queue in that column is under, or null."""
    default = Value(get_config().settings.default_queue.queue_name)
    named = Coalesce(NullIf(OuterRef(queue_name), Value("")), default)
    return Subquery(rows(QueuePause).filter(queue_name=named).values("pk")[:1])


def set_aside(try_ids: Mapping[int, Collection[int]]) -> None:
    """Set these tries, by the ids of the pauses that they are under, aside. The caller has them locked."""
    for pause_id, ids in try_ids.items():
        rows(TaskExecutionTry).filter(pk__in=ids).update(dispatch_at=aside_until(pause_id), publish_count=0)


def pause_over(queue_name: str | None, paused: Mapping[str, int]) -> int | None:
    """The id of the pause that a row's queue is under; None when it is under none."""
    return paused.get(queue_or_default(queue_name)) if paused else None


def without_paused(tries: Iterable[Waiting], paused: Mapping[str, int]) -> list[Waiting]:
    """The tries whose queue is not paused; the others, which the caller has locked, are set aside."""
    if not paused:
        return list(tries)
    kept: list[Waiting] = []
    aside: defaultdict[int, list[int]] = defaultdict(list)
    for task_try in tries:
        pause_id = pause_over(task_try.queue_name, paused)
        if pause_id is None:
            kept.append(task_try)
        else:
            aside[pause_id].append(task_try.pk)
    set_aside(aside)
    return kept


def release(limit: int, paused: Mapping[str, int], *, now: Instant = DATABASE_TIME) -> int:
    """Make up to `limit` tries due that are set aside under pauses which are over. Gives their number."""
    for over in _aside_under_others(paused.values()):
        if not over.exists():
            continue
        with atomic():
            found = unlocked(with_database_time(over.filter(_IS_NO_TIME), now).order_by("dispatch_at")[:limit])
            if found:
                ids = [task_try.pk for task_try in found]
                rows(TaskExecutionTry).filter(pk__in=ids).update(dispatch_at=database_time(found[0]))
                return len(ids)
    return 0


def _aside_under_others(pause_ids: Iterable[int]) -> Iterator[Rows]:
    """Tries that are set aside under other pauses: the gaps between these, each a range of one index."""
    for after, before in pairwise([0, *sorted(pause_ids), None]):
        gap = rows(TaskExecutionTry).filter(dispatch_at__gt=aside_until(after or 0))
        yield gap if before is None else gap.filter(dispatch_at__lt=aside_until(before))


def _after_commit(report: Callable[[], None]) -> None:
    transaction.on_commit(report, using=alias(), robust=True)


class KnownPauses:
    """The paused queues as this process last read them. A dispatcher reads them anew at each pass."""

    def __init__(self) -> None:
        self._paused: Mapping[str, int] = {}
        self._asked_at = float("-inf")

    def read(self) -> Mapping[str, int]:
        """Ask the database."""
        self._paused = paused_queues()
        return self._paused

    def hold(self, queue_name: str | None) -> bool:
        """Whether the queue was paused when last asked; None is the default queue."""
        return pause_over(queue_name, self._paused) is not None

    def grow_stale(self, now: float) -> bool:
        """Whether it is time to `read` again, which the caller does: true at most once in STALE_SECONDS.

        `now` is in seconds, of a monotonic clock.
        """
        is_stale = now - self._asked_at >= STALE_SECONDS
        if is_stale:
            self._asked_at = now
        return is_stale

    def forget(self) -> None:
        """Know nothing, as at the start of a process."""
        self.__init__()  # type: ignore[misc]


known_pauses = KnownPauses()


def read_pauses(requests: Sequence[None], *, now: Instant = DATABASE_TIME, wait: bool = False) -> list[None]:
    """Ask for `known_pauses`, in the writer's thread."""
    known_pauses.read()
    return [None] * len(requests)

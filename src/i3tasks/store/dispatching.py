"""The outbox: tries that are due to be published, and confirmations of publishes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

from django.db.models import F

from ..models import TaskExecutionTry
from .database import DATABASE_TIME, Instant, atomic, database_time, locked, rows, with_database_time
from .enqueue import LONGEST_LOST_AFTER, publish_grace, wait_for_claim
from .pauses import known_pauses, pause_over, set_aside, without_paused
from .postgres.marking import confirm_unclaimed
from .postgres.statements import Question, are_known
from .requests import LOCKED, Locked, TryRef
from .taking import Waiting, lock, take

RETRY_PUBLISH_AFTER = timedelta(seconds=5)
"""After a first refusal; doubled while the try grows older, up to"""
LONGEST_RETRY_PUBLISH_AFTER = timedelta(seconds=80)
NO_PAUSES: Mapping[str, int] = MappingProxyType({})
MOST_ASIDE = 20
"""How often a pass looks further while it finds only tries of paused queues."""


def take_due(limit: int, *, paused: Mapping[str, int] = NO_PAUSES, now: Instant = DATABASE_TIME) -> list[TryRef]:
    """Take up to `limit` tries whose `dispatch_at` has come. For the grace period no other dispatcher takes them.

    Of them, at most a tenth have been published before, so that a long backlog, whose messages are still waiting in
    Pub/Sub, holds up nothing that is new. Those of the queues that are `paused` are set aside instead, and hold up
    nothing, either.
    """
    for _ in range(MOST_ASIDE):
        taken, is_any = _take_due(limit, paused, now)
        if taken or not is_any:
            return taken
    return []


def _take_due(limit: int, paused: Mapping[str, int], now: Instant) -> tuple[list[TryRef], bool]:
    """The tries, and whether any were due at all."""
    with atomic():
        fresh = _due(limit, now, publish_count=0)
        again = _due(max(limit // 10, 1), now, publish_count__gt=0)
        due = [*fresh, *again]
        taken = without_paused(due, paused)
        if not taken:
            return [], bool(due)
        return take(taken, publish_grace(), now=now), True


def next_due(within: timedelta, *, now: Instant = DATABASE_TIME) -> tuple[datetime, datetime] | None:
    """The database's time and when the next try is due that was never published; None when none is within that time.

    What was published is due much later: so a backlog of it is not looked through.
    """
    first = (
        with_database_time(rows(TaskExecutionTry).filter(publish_count=0), now)
        .filter(dispatch_at__lte=F("database_time") + within)
        .order_by("dispatch_at")
        .values_list("database_time", "dispatch_at")
        .first()
    )
    return None if first is None or first[1] is None else (first[0], first[1])


def confirm_published(refs: Sequence[TryRef], *, now: Instant = DATABASE_TIME, wait: bool = False) -> list[None]:
    """Note that Pub/Sub has these tries: they are published again only if no worker has claimed them for long."""
    if not refs:
        return []
    with atomic():
        if are_known(now):
            confirm_plain(refs, now, wait=wait).ask()
            return [None] * len(refs)
        again_at: defaultdict[datetime, list[int]] = defaultdict(list)
        for task_try in _unclaimed(refs, now, wait):
            again_at[database_time(task_try) + wait_for_claim(task_try.publish_count)].append(task_try.pk)
        for dispatch_at, ids in again_at.items():
            rows(TaskExecutionTry).filter(pk__in=ids).update(
                dispatch_at=dispatch_at, publish_count=F("publish_count") + 1
            )
    return [None] * len(refs)


def confirm_plain(refs: Sequence[TryRef], now: Instant, *, wait: bool = False) -> Question[dict[int, None]]:
    """The same, as a question to PostgreSQL."""
    return confirm_unclaimed(refs, wait_for_claim(0), LONGEST_LOST_AFTER, now, wait)


def deny_published(refs: Sequence[TryRef], *, now: Instant = DATABASE_TIME, wait: bool = False) -> list[None]:
    """Note that Pub/Sub refused these tries: they are due again after a wait that doubles with their age.

    While a topic refuses everything, its backlog is tried ever less often, and keeps nothing else from being published.
    """
    with atomic():
        again_after: defaultdict[timedelta, list[TaskExecutionTry]] = defaultdict(list)
        for task_try in _unclaimed(refs, now, wait):
            again_after[_wait_after_refusal(task_try)].append(task_try)
        for delay, tries in again_after.items():
            due = database_time(tries[0]) + delay
            rows(TaskExecutionTry).filter(pk__in=[task_try.pk for task_try in tries]).update(dispatch_at=due)
    return [None] * len(refs)


def _wait_after_refusal(task_try: TaskExecutionTry) -> timedelta:
    age = database_time(task_try) - (task_try.run_after or task_try.asked_at)
    delay = RETRY_PUBLISH_AFTER
    while delay * 2 <= min(age, LONGEST_RETRY_PUBLISH_AFTER):
        delay *= 2
    return delay


def put_back(refs: Sequence[TryRef], *, now: Instant = DATABASE_TIME, wait: bool = False) -> list[Locked | None]:
    """Note that these tries reached no worker, though Pub/Sub did not refuse them: they are due at once.

    Locked: another transaction holds the row, as it may have held it against the claim. Ask again later.
    """
    with atomic():
        free = _unclaimed(refs, now, wait)
        if free:
            due = database_time(free[0])
            rows(TaskExecutionTry).filter(pk__in=[task_try.pk for task_try in free]).update(dispatch_at=due)
        hidden = _hidden(refs, {task_try.pk for task_try in free})
    return [LOCKED if ref.try_id in hidden else None for ref in refs]


def _hidden(refs: Iterable[TryRef], locked_here: Collection[int]) -> set[int]:
    """The tries that another transaction has locked, and that have the `dispatch_at` with which they were taken."""
    expected = {ref.try_id: ref.dispatch_at for ref in refs if ref.try_id not in locked_here}
    if not expected:
        return set()
    found = rows(TaskExecutionTry).filter(pk__in=expected).values_list("pk", "dispatch_at")
    return {pk for pk, dispatch_at in found if dispatch_at is not None and dispatch_at == expected[pk]}


def withhold(refs: Sequence[TryRef], *, now: Instant = DATABASE_TIME, wait: bool = False) -> list[None]:
    """Note that these tries were not published, because their queue is paused: they are set aside.

    The pauses are read anew: tries whose queue is no longer paused are due at once.
    """
    with atomic():
        paused = known_pauses.read()
        tries = {task_try.pk: task_try for task_try in _unclaimed(refs, now, wait)}
        aside: defaultdict[int, list[int]] = defaultdict(list)
        for ref in refs:
            pause_id = pause_over(ref.queue_name, paused)
            if pause_id is not None and ref.try_id in tries:
                aside[pause_id].append(ref.try_id)
                del tries[ref.try_id]
        set_aside(aside)
        if tries:
            due = database_time(next(iter(tries.values())))
            rows(TaskExecutionTry).filter(pk__in=tries).update(dispatch_at=due)
    return [None] * len(refs)


def _unclaimed(refs: Sequence[TryRef], now: Instant, wait: bool) -> list[TaskExecutionTry]:
    """The tries, locked, that still have the `dispatch_at` they were published with.

    A try that was claimed, cancelled or handed back meanwhile has another one, and is left alone.
    """
    expected = {item.try_id: item.dispatch_at for item in refs}
    tries = with_database_time(rows(TaskExecutionTry).filter(pk__in=expected, dispatch_at__isnull=False), now)
    return [
        task_try
        for task_try in locked(tries, wait=wait).only("dispatch_at", "publish_count", "run_after", "asked_at")
        if task_try.dispatch_at == expected[task_try.pk]
    ]


def _due(limit: int, now: Instant, **published: int) -> list[Waiting]:
    due = with_database_time(rows(TaskExecutionTry).filter(dispatch_at__isnull=False, **published), now)
    return lock(due.filter(dispatch_at__lte=F("database_time")).order_by("dispatch_at")[:limit])

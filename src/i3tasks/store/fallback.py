"""Tries that wait for a worker, as the rows know them: the way to a worker that needs no message.

A worker that hears nothing takes them from here; a push queue that hears nothing has its oldest published again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, Q

from ..conf import get_config
from ..models import TaskExecutionResult, TaskExecutionTry
from ..registry import TaskSpec, all_tasks, find
from .database import (
    DATABASE_TIME,
    Instant,
    Rows,
    atomic,
    database_time,
    in_index_order,
    rows,
    with_database_time,
)
from .enqueue import LONGEST_LOST_AFTER, publish_grace, wait_for_claim
from .pauses import ASIDE_FROM
from .priority import due_by_now, levels, place_in_line
from .requests import TryRef
from .taking import DUE_SINCE, Waiting, lock, take

LONGEST_TAKEN = timedelta(seconds=5)
"""Longest time for which a taken try is left to its worker. Its claim comes within milliseconds; if it comes later than
this, the claims decide whose the try is. If it never comes, because the worker died, others have the try after this."""
MOST_UNHEARD = 200
"""Tries of a quiet queue that are published again at a time."""
RECENT_RESULTS = 10_000
"""How many of the last results are looked through for one of a queue: there is no index by time."""
MOST_DOUBLINGS = 18
"""After so many publishes the wait for a claim has reached its maximum, however short it was at first."""


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """Asks for tries of some queues that no message brings.

    published_for   take those that were published so long ago, and not claimed since; None: none of them
    overdue_for     take those that should have been published so long ago, and were not
    room            how many may be taken
    threads         how many of them may be plain functions; with 0, those are passed over for coroutines
    unsent_for      take those that fell due so long ago and that Pub/Sub does not have, although they are to be
                    published only later: it refused them, or the process died that was to publish them; None: none
    """

    queues: tuple[str, ...]
    published_for: timedelta | None
    overdue_for: timedelta
    room: int
    threads: int
    unsent_for: timedelta | None = None


def take_waiting(
    requests: Sequence[WaitingRequest], *, now: Instant = DATABASE_TIME, wait: bool = False
) -> list[list[TryRef]]:
    """Take waiting tries for a worker, in the order of `priority.place_in_line`; no other process takes them meanwhile.

    They are not leased yet: the claim does that, because it knows all rules. A try that its process does not claim,
    because it dies first, is due again after LONGEST_TAKEN.
    """
    if not _due(now).exists():  # a tenth of what the whole question costs; mostly nothing waits
        return [[] for _ in requests]
    with atomic():
        return [_take(request, now) for request in requests]


def _take(request: WaitingRequest, now: Instant) -> list[TryRef]:
    taken = list(_admitted(_first_in_line(request, now), request.threads))
    return take(taken, min(publish_grace(), LONGEST_TAKEN), anew=True, now=now)


def _first_in_line(request: WaitingRequest, now: Instant) -> list[Waiting]:
    """The waiting tries whose turn it is, as many as there is room for.

    If there are more, the first of each priority are looked at: each level is a range of an index.
    """
    waiting = _waiting(request, now)
    found = _first(waiting, request.room)
    if len(found) == request.room:
        priorities = {task_try.priority for task_try in found.values()}
        for level in _levels(request.queues):
            if priorities == {level}:
                continue  # found already
            for name in request.queues:
                found |= _first(waiting.filter(queue_name=name, priority=level), request.room)
    in_line = sorted(found.values(), key=lambda task_try: place_in_line(task_try.priority, task_try.due_since))
    return in_line[: request.room]


def _levels(queues: Sequence[str]) -> list[int]:
    with in_index_order():
        return list(levels(queues))


def _first(waiting: Rows, count: int) -> dict[int, Waiting]:
    with in_index_order():
        return {task_try.pk: task_try for task_try in lock(waiting[:count])}


def _waiting(request: WaitingRequest, now: Instant) -> Rows:
    due = _due(now)
    wanted = Q(publish_count=0, dispatch_at__lte=F("database_time") - request.overdue_for)
    if request.published_for is not None:
        wanted |= _published_before(request.published_for)
    if request.unsent_for is not None:
        since = F("database_time") - request.unsent_for
        # Publishing leaves `updated_at` as it was; what was taken, handed back or put off by a claim was updated then.
        wanted |= Q(publish_count=0, due_since__lte=since, updated_at__lte=since, dispatch_at__lt=ASIDE_FROM)
    if request.threads <= 0:
        due = due.exclude(_tasks(spec for spec in all_tasks() if not spec.is_coroutine))
    return due.filter(_of_queues(request.queues), wanted).order_by("due_since")


def take_unheard(queue: str, patience: timedelta, *, now: Instant = DATABASE_TIME) -> list[TryRef]:
    """Take the oldest tries of a push queue that is quiet, to be published again; [] when it is not.

    Quiet: tries wait that were published longer ago than `patience`, and none of the queue was claimed for as long. At
    most MOST_UNHEARD are taken, and after each time the patience is doubled, until one of them is claimed.
    """
    with atomic():
        oldest = _published_of(queue, now)[:MOST_UNHEARD]
        with in_index_order():
            found = list(oldest)
        if not _is_quiet(found, patience) or _was_claimed(queue, patience, now):
            return []
        with in_index_order():
            unheard = lock(oldest)
        return take(unheard, publish_grace(), now=now)


def due_of(queues: Sequence[str], *, now: Instant = DATABASE_TIME) -> Rows:
    """The tries of these queues that a worker could begin now, with or without their messages."""
    return _due(now).filter(_of_queues(queues))


def _published_of(queue: str, now: Instant) -> Rows:
    return due_of([queue], now=now).filter(publish_count__gt=0).order_by("due_since")


def _is_quiet(oldest: Sequence[Any], patience: timedelta) -> bool:
    """Whether all of them were last published long ago. A try that is being published counts as published now."""
    if not oldest:
        return False
    now = database_time(oldest[0])
    is_under_way = any(task_try.dispatch_at <= now + publish_grace() for task_try in oldest)
    published = max(map(_published_at, oldest))
    times = max(task_try.publish_count for task_try in oldest)
    return not is_under_way and now - published >= patience * float(2 ** (min(times, MOST_DOUBLINGS) - 1))


def _was_claimed(queue: str, within: timedelta, now: Instant) -> bool:
    """Whether a try of the queue began so recently: one that runs, or one that ended among the last to end at all."""
    claimed = with_database_time(rows(TaskExecutionTry).filter(_of_queues([queue])), now)
    claimed = claimed.filter(started_at__gte=F("database_time") - within)
    if claimed.filter(lease_until__isnull=False).exists():
        return True
    results = rows(TaskExecutionResult).order_by("-pk").values("task_execution_try")[:RECENT_RESULTS]
    return bool(claimed.filter(pk__in=results).exists())


def _due(now: Instant) -> Rows:
    """Tries that no worker runs yet and that one could run now. One index holds all that wait, by `due_since`."""
    tries = rows(TaskExecutionTry).filter(is_completed=False, started_at__isnull=True, dispatch_at__isnull=False)
    tries = tries.filter(claim_token__isnull=True).annotate(due_since=DUE_SINCE)
    return due_by_now(with_database_time(tries, now))


def _published_at(task_try: Any) -> datetime:
    """The time of its last publish, which moved `dispatch_at` ahead by a wait that grows with `publish_count`."""
    published_at: datetime = task_try.dispatch_at - wait_for_claim(task_try.publish_count - 1)
    return published_at


def _published_before(ago: timedelta) -> Q:
    """Tries whose last publish was so long ago: for each number of publishes, until the wait has its maximum."""
    if not ago:
        return Q(publish_count__gt=0)  # by whichever clock: the caller's own may have written them as published
    found, count = Q(pk__in=[]), 1
    while (ahead := wait_for_claim(count - 1)) < LONGEST_LOST_AFTER:
        found |= Q(publish_count=count, dispatch_at__lte=F("database_time") + (ahead - ago))
        count += 1
    return found | Q(publish_count__gte=count, dispatch_at__lte=F("database_time") + (ahead - ago))


def _of_queues(names: Sequence[str]) -> Q:
    """Without the tasks that name a topic themselves, whose subscriptions are not of these queues."""
    of_queues = Q(task_execution__queue_name__in=names)
    if get_config().queue(None).name in names:
        with_own_topic = _tasks(spec for spec in all_tasks() if spec.options.topic_name)
        of_queues |= Q(task_execution__queue_name__isnull=True) & ~with_own_topic
    return of_queues


def _tasks(specs: Iterable[TaskSpec]) -> Q:
    of_tasks = Q(pk__in=[])
    for spec in specs:
        of_tasks |= Q(task_execution__task_path=spec.module_name, task_execution__task_name=spec.func_name)
    return of_tasks


def _admitted(tries: Sequence[Waiting], threads: int) -> Iterator[Waiting]:
    """Leaves out plain functions for which there is no thread."""
    for task_try in tries:
        spec = find(task_try.module_name, task_try.func_name)
        if spec is not None and not spec.is_coroutine:
            if threads <= 0:
                continue
            threads -= 1
        yield task_try

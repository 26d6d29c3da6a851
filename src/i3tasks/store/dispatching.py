"""The outbox: what is due to be published, what has been, and whose worker is gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import InterfaceError, OperationalError, connections
from django.db.models import F, QuerySet
from django.db.models.expressions import Combinable

from ..clock import SYSTEM_CLOCK, Clock
from ..conf import get_config
from ..exceptions import WorkerLost
from ..models import TaskExecution, TaskExecutionTry
from ..outcome import Failure
from ..registry import policy_of
from ..telemetry import emit
from .database import atomic, database_time, locked, rows, with_database_time
from .enqueue import ref
from .refs import TryRef
from .settle import Ending, apply, lock_executions

LONGEST_LOST_AFTER = timedelta(days=1)
RETRY_PUBLISH_AFTER = timedelta(seconds=5)


def take_due(limit: int, *, now: Combinable | None = None) -> list[TryRef]:
    """Take up to `limit` tries whose `dispatch_at` has come; nobody else takes them for the grace period.

    Of them, at most a tenth have been published before, so that a long backlog, whose messages are still waiting in
    Pub/Sub, holds up nothing that is new.
    """
    with atomic():
        fresh = _due(limit, now, publish_count=0)
        again = _due(max(limit // 10, 1), now, publish_count__gt=0)
        taken = [*fresh, *again]
        if not taken:
            return []
        dispatch_at = database_time(taken[0]) + timedelta(seconds=get_config().settings.publish_grace_seconds)
        rows(TaskExecutionTry).filter(pk__in=[task_try.pk for task_try in taken]).update(dispatch_at=dispatch_at)
        for task_try in taken:
            task_try.dispatch_at = dispatch_at
        return [ref(task_try) for task_try in taken]


def next_due() -> tuple[datetime, datetime] | None:
    """The database's time and when the next try is due that was never published; None when there is none."""
    first = (
        with_database_time(rows(TaskExecutionTry).filter(dispatch_at__isnull=False, publish_count=0))
        .order_by("dispatch_at")
        .values_list("database_time", "dispatch_at")
        .first()
    )
    return None if first is None or first[1] is None else (first[0], first[1])


def confirm_published(refs: Sequence[TryRef], *, now: Combinable | None = None, wait: bool = False) -> list[None]:
    """Pub/Sub has these: publish them again only should nobody claim them for long."""
    first_wait = timedelta(seconds=get_config().settings.lost_after_seconds)
    with atomic():
        again_at: defaultdict[datetime, list[int]] = defaultdict(list)
        for task_try in _unclaimed(refs, now, wait):
            wait_for_claim = min(first_wait * 2 ** min(task_try.publish_count, 20), LONGEST_LOST_AFTER)
            again_at[database_time(task_try) + wait_for_claim].append(task_try.pk)
        for dispatch_at, ids in again_at.items():
            rows(TaskExecutionTry).filter(pk__in=ids).update(
                dispatch_at=dispatch_at, publish_count=F("publish_count") + 1
            )
    return [None] * len(refs)


def deny_published(refs: Sequence[TryRef], *, now: Combinable | None = None, wait: bool = False) -> list[None]:
    """Pub/Sub did not take these: they are due again soon, rather than after the grace of an answer to come."""
    with atomic():
        if tries := _unclaimed(refs, now, wait):
            soon = database_time(tries[0]) + RETRY_PUBLISH_AFTER
            rows(TaskExecutionTry).filter(pk__in=[task_try.pk for task_try in tries]).update(dispatch_at=soon)
    return [None] * len(refs)


def expire_leases(limit: int, *, now: Combinable | None = None, clock: Clock = SYSTEM_CLOCK) -> list[TryRef]:
    """End running tries whose lease ran out as lost with their worker, which counts as a failed try.

    Gives the next tries that are due at once. A try that can't be ended is an event, and holds up no other.
    """
    try:
        return _expire(_overdue(now)[:limit], clock)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        due: list[TryRef] = []
        for pk in list(_overdue(now).values_list("pk", flat=True)[:limit]):
            try:
                due += _expire(_overdue(now).filter(pk=pk), clock)
            except (OperationalError, InterfaceError):
                raise
            except Exception as error:
                emit("internal_error", where="expire_leases", try_id=pk, error=repr(error), exc_info=error)
        return due


def _overdue(now: Combinable | None) -> QuerySet[Any]:
    running = with_database_time(rows(TaskExecutionTry).filter(lease_until__isnull=False), now)
    overdue: QuerySet[Any] = running.filter(lease_until__lt=F("database_time")).order_by("lease_until")
    return overdue


def _expire(overdue: QuerySet[Any], clock: Clock) -> list[TryRef]:
    with atomic():
        tries = _unlocked(overdue)
        executions = lock_executions({task_try.task_execution_id for task_try in tries}, wait=False)
        endings = [
            _lost(task_try, executions[task_try.task_execution_id], clock)
            for task_try in tries
            if task_try.task_execution_id in executions
        ]
        due = apply(endings)
        # Without its token, a worker that was only slow finds its settlement stale.
        rows(TaskExecutionTry).filter(pk__in=[ending.task_try.pk for ending in endings]).update(claim_token=None)
    if endings:
        emit("tries_lost", tries=[ending.task_try.pk for ending in endings])
    return [item for items in due.values() for item in items]


def _unclaimed(refs: Sequence[TryRef], now: Combinable | None, wait: bool) -> list[TaskExecutionTry]:
    """The tries, locked, that still have the `dispatch_at` they were published with.

    One that was claimed, cancelled or handed back meanwhile has another, and what became of the publish is no news.
    """
    expected = {item.try_id: item.dispatch_at for item in refs}
    tries = with_database_time(rows(TaskExecutionTry).filter(pk__in=expected, dispatch_at__isnull=False), now)
    return [
        task_try
        for task_try in locked(tries, wait=wait).only("dispatch_at", "publish_count")
        if task_try.dispatch_at == expected[task_try.pk]
    ]


def _lost(task_try: TaskExecutionTry, execution: TaskExecution, clock: Clock) -> Ending:
    error = WorkerLost(f"Worker {task_try.worker_id} died, or lost the database, before the try was finished.")
    policy = policy_of(execution.task_path, execution.task_name, execution.options or {})
    return Ending(task_try, execution, Failure.of(error, policy, task_try.try_number, clock), database_time(task_try))


def _due(limit: int, now: Combinable | None, **published: int) -> list[TaskExecutionTry]:
    due = with_database_time(rows(TaskExecutionTry).filter(dispatch_at__isnull=False, **published), now)
    due = due.filter(dispatch_at__lte=F("database_time")).select_related("task_execution")
    return _unlocked(due.order_by("dispatch_at")[:limit])


def _unlocked(queryset: QuerySet[Any]) -> list[TaskExecutionTry]:
    """The rows that nobody else has locked; locked for us."""
    if connections[queryset.db].features.has_select_for_update_skip_locked:
        queryset = queryset.select_for_update(skip_locked=True, of=("self",), no_key=True)
    return list(queryset)

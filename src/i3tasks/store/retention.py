"""Deleting what is over and old: in batches, by the index on `created_at`, one short transaction each.

Never touched: what is pending, running or deferred; members of a group that is still open; executions that an
idempotency key still stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any

from django.db import IntegrityError, connections, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery

from ..clock import SYSTEM_CLOCK
from ..conf import get_config
from ..models import ScheduleTick, TaskExecution, TaskExecutionTry, TaskGroup, TaskKey
from .database import Rows, alias, rows

BATCH = 1000
LARGEST_BATCH = 10_000
"""SQLite takes at most 32,766 parameters in a statement, and a transaction should be short anyway."""


@dataclass(frozen=True, slots=True)
class Ages:
    """How old finished work must be to go. None: it stays. At least one of the two is given."""

    failed: timedelta | None
    other: timedelta | None

    @classmethod
    def of(cls, older_than: timedelta | None = None, failed_older_than: timedelta | None = None) -> Ages | None:
        """These ages; what is not given is as I3TASKS says. Failures without an age of their own go like the others.

        None when neither has an age.
        """
        settings = get_config().settings
        other = settings.autoclean_older_than if older_than is None else older_than
        failed = settings.autoclean_failed_older_than if failed_older_than is None else failed_older_than
        if other is None and failed is None:
            return None
        return cls(failed=other if failed is None else failed, other=other)


@dataclass(slots=True)
class Cleaned:
    """How many rows went. Tries and results go with their executions, and are not counted."""

    executions: int = 0
    groups: int = 0
    ticks: int = 0


def clean_old_task_executions(older_than: timedelta | None = None, batch_size: int | None = None) -> int:
    """Delete the executions that ended and were created longer ago than `older_than`, with their tries and results.

    Without it, than I3TASKS says in `autoclean_older_than`, else nothing is deleted. Failures are kept for
    `autoclean_failed_older_than`, where that is set. `batch_size` is how many go in a transaction (1,000; at most
    10,000). Groups that are done and empty, and the ticks of schedules, go too. Gives the number of executions.
    """
    ages = Ages.of(older_than)
    return 0 if ages is None else clean(ages, batch_size).executions


def old_task_executions(older_than: timedelta | None = None) -> QuerySet[TaskExecution] | None:
    """The executions that `clean_old_task_executions` would delete; None when nothing says how old is old."""
    ages = Ages.of(older_than)
    return None if ages is None else old_executions(ages, SYSTEM_CLOCK.now())


def clean(
    ages: Ages,
    batch_size: int | None = None,
    *,
    now: datetime | None = None,
    progress: Callable[[int], None] | None = None,
) -> Cleaned:
    """Delete what is older than `ages`. `progress` is called after each batch with the executions deleted so far."""
    now = now or SYSTEM_CLOCK.now()
    size = min(max(batch_size or BATCH, 1), LARGEST_BATCH)
    cleaned = Cleaned()
    for executions in _deleted(old_executions(ages, now), "created_at", size):
        cleaned.executions += executions
        if progress is not None:
            progress(cleaned.executions)
    cleaned.groups = sum(_deleted(_old_groups(ages, now), "pk", size))
    cleaned.ticks = sum(_deleted(_old_ticks(ages, now), "slot", size))
    return cleaned


def old_executions(ages: Ages, now: datetime) -> QuerySet[TaskExecution]:
    """Executions that are over, were created longer ago than their age, and that nothing waits for."""
    latest_try = rows(TaskExecutionTry).filter(task_execution=OuterRef("pk")).order_by("-try_number")
    # Rows of django-i3tasks have no outcome: they are over when their latest try is.
    over = rows(TaskExecution).alias(
        ended_at=Subquery(latest_try.values("finished_at")[:1]),
        ended_well=Subquery(latest_try.values("is_success")[:1]),
    )
    unmarked = Q(outcome__isnull=True, ended_at__isnull=False)
    failed = Q(outcome=TaskExecution.Outcome.FAILED) | unmarked & Q(ended_well=False)
    other = Q(outcome__in=[TaskExecution.Outcome.SUCCESS, TaskExecution.Outcome.CANCELLED]) | unmarked & Q(
        ended_well=True
    )
    open_group = rows(TaskGroup).filter(pk=OuterRef("task_group"), status=TaskGroup.STATUS_PENDING)
    live_key = rows(TaskKey).filter(task_execution=OuterRef("pk"), expires_at__gt=now)
    return over.filter(_old(failed, other, ages, now), ~Exists(open_group), ~Exists(live_key))


def _old_groups(ages: Ages, now: datetime) -> QuerySet[TaskGroup]:
    failed, success = Q(status=TaskGroup.STATUS_FAILED), Q(status=TaskGroup.STATUS_SUCCESS)
    members = rows(TaskExecution).filter(task_group=OuterRef("pk"))
    return rows(TaskGroup).filter(_old(failed, success, ages, now), ~Exists(members))


def _old_ticks(ages: Ages, now: datetime) -> QuerySet[ScheduleTick]:
    """Ticks whose execution is gone. A schedule's state says how far it has come, so none is needed for that."""
    age = ages.failed if ages.other is None else ages.other
    assert age is not None  # one of the two is there
    return rows(ScheduleTick).filter(execution__isnull=True, slot__lt=now - age)


def _old(failed: Q, other: Q, ages: Ages, now: datetime) -> Q:
    """Rows of either kind that were created longer ago than the kind's age."""
    kinds = [(kind, now - age) for kind, age in ((failed, ages.failed), (other, ages.other)) if age is not None]
    either = reduce(or_, (kind & Q(created_at__lt=before) for kind, before in kinds))
    # Said once more for both together, so that the index on `created_at` serves.
    return either & Q(created_at__lt=max(before for _, before in kinds))


def _deleted(old: Rows, column: str, size: int) -> Iterator[int]:
    """Delete these rows in the order of `column`; gives how many went, batch by batch."""
    after: tuple[Any, int] | None = None
    while True:
        # Those that had to stay, because somebody holds on to them, are not come back to.
        rest = (
            old
            if after is None
            else old.filter(**{f"{column}__gte": after[0]}).exclude(**{column: after[0]}, pk__lte=after[1])
        )
        batch = list(rest.order_by(column, "pk").values_list(column, "pk")[:size])
        if not batch:
            return
        yield _delete(old, [pk for _, pk in batch])
        after = batch[-1]


def _delete(old: Rows, ids: Sequence[int]) -> int:
    """Delete those of `ids` that are still old, and that no row of the project's own forbids to delete."""
    try:
        return _delete_together(old, ids)
    except IntegrityError:  # of which Django's ProtectedError is one
        if len(ids) == 1:
            return 0
        middle = len(ids) // 2
        return _delete(old, ids[:middle]) + _delete(old, ids[middle:])


def _delete_together(old: Rows, ids: Sequence[int]) -> int:
    with transaction.atomic(using=alias()):
        found = old.filter(pk__in=ids).order_by("pk")
        if connections[alias()].features.has_select_for_update_skip_locked:
            # Not `no_key`: an uncommitted row may refer to this one, and we do not wait for its transaction.
            found = found.select_for_update(skip_locked=True)
        found_ids = list(found.values_list("pk", flat=True))
        rows(old.model).filter(pk__in=found_ids).only("pk").delete()
        return len(found_ids)

"""Retention: deletes old finished rows in batches, by the index on `created_at`, one short transaction each.

Kept: pending, running and deferred executions; the executions and groups that these follow or are part of; members of a
group that is still open; executions that an unexpired idempotency key refers to. An unfinished row is deleted only if
nothing will ever finish it: no try is due, leased or deferred, and none is so young that Pub/Sub may have a message of
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from django.db import IntegrityError, connections
from django.db.models import CASCADE, DO_NOTHING, PROTECT, RESTRICT, Exists, Model, OuterRef, Q, QuerySet, Subquery
from django.db.models.fields.reverse_related import ForeignObjectRel
from django.db.models.functions import Coalesce

from ..models import ScheduleTick, TaskExecution, TaskExecutionTry, TaskGroup, TaskKey
from .ages import Ages, old_of_all
from .database import Rows, alias, atomic, rows, unlocked
from .states import CANCELLED, FAILED, NOT_MARKED, SUCCEEDED
from .workflow_links import MOST_IDS, Ids, above, are_followed, behind_unfinished, unfinished

BATCH = 1000
LARGEST_BATCH = MOST_IDS
StillOld = Callable[[Sequence[int]], set[int]]
"""Picks, from ids whose rows are locked, those that are to be deleted."""
PAGE = 50_000
"""Ids that are read together."""
_UNTOUCHED = (DO_NOTHING, PROTECT, RESTRICT)
ENDED = "finished_at"


@dataclass(slots=True)
class Cleaned:
    """The numbers of deleted rows. Tries and results are deleted with their executions, and not counted."""

    executions: int = 0
    groups: int = 0
    ticks: int = 0


def clean(
    ages: Ages,
    batch_size: int | None = None,
    *,
    now: datetime,
    progress: Callable[[int], None] | None = None,
) -> Cleaned:
    """Delete what is older than `ages`.

    `progress` is called after each batch that deleted any with the executions deleted so far.
    """
    size = min(max(batch_size or BATCH, 1), LARGEST_BATCH)
    cleaned = Cleaned()
    for executions in _deleted(_aged(ages, now), "created_at", size, partial(_still_old, ages, now)):
        cleaned.executions += executions
        if executions and progress is not None:
            progress(cleaned.executions)
    if not ages.only_queue:
        cleaned.groups = sum(_deleted(_old_groups(ages, now), "pk", size, partial(_still_old_groups, ages, now)))
        cleaned.ticks = sum(_deleted(_old_ticks(ages, now), "slot", size, set))
    return cleaned


def old_executions(ages: Ages, now: datetime) -> QuerySet[TaskExecution]:
    """Executions that have ended or never will, that have reached their age, and that nothing waits for."""
    kept, waiting = _kept(ages, now), _long_pending(ages, now) - _dead_groups(ages, now)
    return _candidates(ages, now).exclude(pk__in=_some(kept.executions)).exclude(task_group__in=_some(waiting))


def _aged(ages: Ages, now: datetime) -> QuerySet[TaskExecution]:
    """The executions that may be old, by their own columns alone: a page of them is read without any other table."""
    return rows(TaskExecution).filter(
        old_of_all(ages, now, [(FAILED, ENDED)], [(SUCCEEDED, ENDED)], [(CANCELLED, ENDED)], lambda _: NOT_MARKED)
    )


def _candidates(ages: Ages, now: datetime) -> QuerySet[TaskExecution]:
    """The executions that are old by themselves. Whether unfinished work is linked to them is `_still_old`'s to say."""
    latest_try = rows(TaskExecutionTry).filter(task_execution=OuterRef("pk")).order_by("-try_number")
    # Rows of django-i3tasks have no outcome: they are over when their latest try is.
    over = rows(TaskExecution).alias(
        ended_at=Subquery(latest_try.values("finished_at")[:1]),
        ended_well=Subquery(latest_try.values("is_success")[:1]),
    )
    unmarked = NOT_MARKED & Q(ended_at__isnull=False)
    failed = [(FAILED, ENDED), (unmarked & Q(ended_well=False), "ended_at")]
    succeeded = [(SUCCEEDED, ENDED), (unmarked & Q(ended_well=True), "ended_at")]
    open_try = Exists(unfinished(now).filter(task_execution=OuterRef("pk")))

    def dead(rule: Ages) -> Q:
        return NOT_MARKED & Q(ended_at__isnull=True, created_at__lt=rule.dead_before(now)) & Q(~open_try)

    open_group = rows(TaskGroup).filter(pk=OuterRef("task_group"), status=TaskGroup.STATUS_PENDING)
    open_group = open_group.exclude(_waits_long(ages, now))
    live_key = rows(TaskKey).filter(task_execution=OuterRef("pk"), expires_at__gt=now)
    old = old_of_all(ages, now, failed, succeeded, [(CANCELLED, ENDED)], dead)
    return over.filter(old, ~Exists(open_group), ~Exists(live_key))


def _old_groups(ages: Ages, now: datetime) -> QuerySet[TaskGroup]:
    # Groups of django-i3tasks have no `finished_at`.
    groups = rows(TaskGroup).alias(ended_at=Coalesce("finished_at", "updated_at"))
    failed, success = Q(status=TaskGroup.STATUS_FAILED), Q(status=TaskGroup.STATUS_SUCCESS)
    dead = Q(pk__in=_some(_dead_groups(ages, now)))
    old = ages.of_no_queue.old(now, [(failed, "ended_at")], [(success, "ended_at")], [], lambda _: dead)
    return groups.filter(old, ~Exists(rows(TaskExecution).filter(task_group=OuterRef("pk"))))


def _old_ticks(ages: Ages, now: datetime) -> QuerySet[ScheduleTick]:
    """Old ticks whose execution is deleted. Beats do not need them: a schedule's state says which slots are done."""
    return rows(ScheduleTick).filter(execution__isnull=True, slot__lt=now - ages.of_no_queue.unfailed)


def _waits_long(ages: Ages, now: datetime) -> Q:
    """Pending groups that may wait for ever: old ones without a deadline that have not changed for long."""
    before = ages.of_no_queue.dead_before(now)
    return Q(status=TaskGroup.STATUS_PENDING, deadline__isnull=True, created_at__lt=before, updated_at__lt=before)


def _long_pending(ages: Ages, now: datetime) -> set[int]:
    return set(rows(TaskGroup).filter(_waits_long(ages, now)).values_list("pk", flat=True))


def _dead_groups(ages: Ages, now: datetime) -> set[int]:
    """Groups that wait for ever: nothing unfinished belongs to them any more."""
    candidates = _long_pending(ages, now)
    return candidates - behind_unfinished(now).groups if candidates else candidates


def _kept(ages: Ages, now: datetime) -> Ids:
    """The rows that unfinished executions and open groups follow or are part of: a cancellation needs them."""
    kept = behind_unfinished(now)
    pending = rows(TaskGroup).filter(status=TaskGroup.STATUS_PENDING)
    kept.add(above(Ids(groups=set(pending.values_list("pk", flat=True)) - _dead_groups(ages, now))))
    return kept


def _still_old(ages: Ages, now: datetime, ids: Sequence[int]) -> set[int]:
    """Those of the executions that are old now, and are not linked to unfinished work."""
    waiting = _long_pending(ages, now) - _dead_groups(ages, now)
    found = _candidates(ages, now).filter(pk__in=ids).values_list("pk", "task_group_id")
    old = {pk for pk, group_id in found if group_id not in waiting}
    return old - _kept(ages, now).executions if are_followed(old) else old


def _still_old_groups(ages: Ages, now: datetime, ids: Sequence[int]) -> set[int]:
    found = _old_groups(ages, now).filter(pk__in=ids).values_list("pk", flat=True)
    return set(found) - _kept(ages, now).groups


def _some(ids: set[int]) -> list[int]:
    """The first ids, as many as a statement takes."""
    return sorted(ids)[:MOST_IDS]


def _deleted(old: Rows, column: str, size: int, still_old: StillOld) -> Iterator[int]:
    """Delete these rows in the order of `column`, if they are `still_old`; yield the number deleted in each batch.

    Their ids are read in pages of many batches: where thousands of rows have the same `column`, each page sorts them.
    """
    after: tuple[Any, int] | None = None
    while True:
        # Rows that could not be deleted (locked, or protected by a row of the project) are passed over.
        rest = (
            old
            if after is None
            else old.filter(**{f"{column}__gte": after[0]}).exclude(**{column: after[0]}, pk__lte=after[1])
        )
        page = list(rest.order_by(column, "pk").values_list(column, "pk")[: max(PAGE, size)])
        if not page:
            return
        for start in range(0, len(page), size):
            yield _delete(old, [pk for _, pk in page[start : start + size]], still_old)
        after = page[-1]


def _delete(old: Rows, ids: Sequence[int], still_old: StillOld) -> int:
    """Delete the rows of `ids` that are still old. Those that a row of the project protects are kept."""
    try:
        return _delete_together(old, ids, still_old)
    except IntegrityError:  # of which Django's ProtectedError is one
        if len(ids) == 1:
            return 0
        middle = len(ids) // 2
        return _delete(old, ids[:middle], still_old) + _delete(old, ids[middle:], still_old)


def _delete_together(old: Rows, ids: Sequence[int], still_old: StillOld) -> int:
    with atomic(savepoint=True):
        found = rows(old.model).filter(pk__in=ids).order_by("pk")
        if connections[alias()].features.has_select_for_update_skip_locked:
            # Not `no_key`: this way, rows that an uncommitted row refers to are skipped instead of waited for.
            found = found.select_for_update(skip_locked=True)
        locked_ids = list(found.values_list("pk", flat=True))
        # Only now: executions that were retried or followed since the ids were read are no longer old.
        old_ids = _deletable(old.model, still_old(locked_ids))
        rows(old.model).filter(pk__in=old_ids).only("pk").delete()
        return len(old_ids)


def _deletable(model: type[Model], ids: set[int]) -> set[int]:
    """Those of the locked rows whose deletion will wait for no other transaction: what goes with them is locked, too.

    Tries and their results are deleted with an execution; a next step that is kept longer loses its link to it.
    """
    if not connections[alias()].features.has_select_for_update_skip_locked:
        return ids
    deletable = set(ids)
    for relation in _links_to(model):
        cascades = relation.on_delete is CASCADE
        linked = relation.related_model._base_manager.using(alias()).filter(**{f"{relation.field.name}__in": deletable})
        free = {row.pk for row in unlocked(linked.order_by("pk").only("pk"), to_delete=cascades)}
        free = _deletable(relation.related_model, free) if cascades else free
        deletable -= {owner for pk, owner in linked.values_list("pk", f"{relation.field.name}__pk") if pk not in free}
    return deletable


def _links_to(model: type[Model]) -> list[Any]:
    """The relations by which Django deletes or changes other rows with those of `model`; a project may have its own."""
    links = [field for field in model._meta.get_fields(include_hidden=True) if isinstance(field, ForeignObjectRel)]
    return [field for field in links if not field.many_to_many and field.on_delete not in (*_UNTOUCHED, None)]

"""The links of workflows: followed down to what failed in a group, and up from unfinished work to what it came from.

The links of an execution are `previous` and `previous_group`, the step or group that it followed, and `part_of` and
`task_group`, the groups of which it begins or ends a member. Those of a group are `previous` and `part_of`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from django.db.models import Case, IntegerField, Model, Q, Value, When

from ..models import ExecutionOutcome, GroupSlice, TaskExecution, TaskExecutionTry, TaskGroup
from .database import Rows, rows
from .states import NOT_MARKED, OPEN_TRY, has_success

LONGEST_DELIVERY = timedelta(days=31)
"""Pub/Sub keeps no message longer, so an older unfinished row of django-i3tasks will never be run."""
MOST_IDS = 10_000
"""SQLite takes at most 32,766 parameters in a statement."""

_UP = ("previous_id", "previous_group_id", "part_of_id", "task_group_id")
_KIND = Case(
    When(outcome=ExecutionOutcome.FAILED, then=Value(0)),
    When(outcome__isnull=False, then=Value(1)),
    default=Value(2),
    output_field=IntegerField(),
)


@dataclass(slots=True)
class Ids:
    """Ids of executions and of groups."""

    executions: set[int] = field(default_factory=set)
    groups: set[int] = field(default_factory=set)

    def add(self, found: Ids) -> Ids:
        """Add these ids. Gives those that are new."""
        fresh = Ids(found.executions - self.executions, found.groups - self.groups)
        self.executions |= fresh.executions
        self.groups |= fresh.groups
        return fresh

    def merged(self, others: Ids) -> Ids:
        return Ids(self.executions | others.executions, self.groups | others.groups)

    def __bool__(self) -> bool:
        return bool(self.executions or self.groups)


def failed_within(group_id: int) -> int | None:
    """The execution that a group's failure callback is told of: the first failed one of all steps of its members.

    If none has failed it is the first cancelled one, else an unfinished one; None if the group has no execution.
    The steps of chains and groups inside the group count, too.
    """
    inside = _inside(group_id)
    candidates = [
        *_lost("task_group", inside.groups),
        *_lost("pk", inside.executions),
    ]
    return min(candidates, default=(None,))[-1]


def unfinished(now: datetime) -> Rows:
    """The tries that may still be run: due, leased or deferred, or so young that Pub/Sub may have a message of them."""
    may_come = Q(dispatch_at__isnull=False) | Q(lease_until__isnull=False) | Q(run_after__gt=now)
    is_young = Q(asked_at__gte=now - LONGEST_DELIVERY)
    return rows(TaskExecutionTry).filter(OPEN_TRY, may_come | is_young)


def are_followed(ids: Collection[int]) -> bool:
    """Whether anything came from one of these executions. If nothing did, unfinished work need not be looked at."""
    after_executions, after_groups = rows(TaskExecution), rows(TaskGroup)
    return after_executions.filter(previous__in=ids).exists() or after_groups.filter(previous__in=ids).exists()


def behind_unfinished(now: datetime) -> Ids:
    """All executions and groups that an unfinished execution follows, or is part of, over any number of links."""
    live = rows(TaskExecution).filter(NOT_MARKED, pk__in=unfinished(now).values("task_execution"))
    linked = ~Q(**{f"{column}__isnull": True for column in _UP})
    # Members that are not written yet are unfinished, too.
    opening = set(rows(GroupSlice).values_list("task_group_id", flat=True).distinct())
    return above(_parents(live.filter(linked)).merged(Ids(groups=opening)))


def above(start: Ids) -> Ids:
    """These executions and groups, and all that they follow or are part of."""
    found = Ids()
    fresh = found.add(start)
    while fresh:
        fresh = found.add(_parents_of(fresh))
    return found


def _parents_of(below: Ids) -> Ids:
    parents = Ids()
    for some in _chunks(below.executions):
        parents.add(_parents(rows(TaskExecution).filter(pk__in=some)))
    for some in _chunks(below.groups):
        for previous, part_of in rows(TaskGroup).filter(pk__in=some).values_list("previous_id", "part_of_id"):
            parents.add(Ids({previous} - {None}, {part_of} - {None}))
    return parents


def _parents(executions: Rows) -> Ids:
    parents = Ids()
    for previous, *groups in executions.order_by().values_list(*_UP).distinct():
        parents.add(Ids({previous} - {None}, {*groups} - {None}))
    return parents


def _inside(group_id: int) -> Ids:
    """The groups inside a group, itself among them, and the steps of its members that are not the last ones."""
    found = Ids()
    fresh = found.add(Ids(groups={group_id}))
    while fresh:
        steps = [
            *_select(TaskExecution, "part_of", fresh.groups, "pk", "task_group_id"),
            *_select(TaskExecution, "previous", fresh.executions, "pk", "task_group_id"),
            *_select(TaskExecution, "previous_group", fresh.groups - {group_id}, "pk", "task_group_id"),
        ]
        groups = [
            *_select(TaskGroup, "part_of", fresh.groups, "pk"),
            *_select(TaskGroup, "previous", fresh.executions, "pk"),
        ]
        not_last = {pk for pk, member_of in steps if member_of not in found.groups}
        fresh = found.add(Ids(not_last, {pk for (pk,) in groups}))
    return found


def _lost(column: str, ids: Collection[int]) -> Iterator[tuple[int, str, int]]:
    """For each chunk of `ids`, the execution that failed first, as a tuple that sorts by kind, end and id."""
    well = Q(outcome=ExecutionOutcome.SUCCESS) & (Q(cancel_requested_at__isnull=True) | Q(task_group__isnull=False))
    for some in _chunks(ids):
        found = rows(TaskExecution).filter(Q(outcome__isnull=False) | ~has_success(), **{f"{column}__in": some})
        first: Any = found.exclude(well).annotate(kind=_KIND).order_by("kind", "finished_at", "pk").first()
        if first is not None:
            yield first.kind, str(first.finished_at or ""), first.pk


def _select(model: type[Model], column: str, ids: Collection[int], *values: str) -> Iterator[tuple[Any, ...]]:
    for some in _chunks(ids):
        yield from rows(model).filter(**{f"{column}__in": some}).values_list(*values)


def _chunks(ids: Collection[int]) -> Iterator[list[int]]:
    remaining = iter(sorted(ids))
    while some := list(islice(remaining, MOST_IDS)):
        yield some

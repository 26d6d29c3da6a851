"""Ending groups that would otherwise wait: by hand, at their deadline, with their members."""

from __future__ import annotations

from datetime import datetime

from django.db.models import Exists, F, OuterRef
from django.db.models.expressions import Combinable

from ..clock import SYSTEM_CLOCK
from ..models import TaskExecution, TaskExecutionTry, TaskGroup
from .cancel import cancel_workflow
from .database import Rows, atomic, database_time, locked, rows, with_database_time
from .workflows import Plan


def close_group(group_id: int) -> list[TaskExecutionTry]:
    """Expect no more members than have ended: the group succeeds if none of them failed. Gives what follows."""
    with atomic():
        group = locked(rows(TaskGroup).filter(pk=group_id, status=TaskGroup.STATUS_PENDING), wait=True).first()
        if group is None:
            return []
        group.total_count = group.completed_count + group.failed_count
        group.save(update_fields=["total_count", "updated_at"])
        plan = Plan(SYSTEM_CLOCK.now())
        plan.decide(group)
        return plan.write()


def cancel_group(group_id: int) -> list[TaskExecutionTry]:
    """Cancel what is unfinished of the group: its members, the chains and groups that lead to them, its callback."""
    with atomic():
        tries = cancel_workflow(group_ids=[group_id])
        plan = Plan(SYSTEM_CLOCK.now())
        group = locked(rows(TaskGroup).filter(pk=group_id), wait=True).get()
        plan.fail(group, _failed_member(group_id))
        return [*tries, *plan.write()]


def expire_groups(limit: int, *, now: Combinable | None = None) -> list[TaskExecutionTry]:
    """Fail pending groups whose deadline has passed. Gives what follows."""
    overdue = with_database_time(rows(TaskGroup).filter(status=TaskGroup.STATUS_PENDING, deadline__isnull=False), now)
    if not overdue.filter(deadline__lt=F("database_time")).exists():
        return []
    with atomic():
        groups = list(locked(overdue.filter(deadline__lt=F("database_time")), wait=False)[:limit])
        if not groups:
            return []
        plan = Plan(database_time(groups[0]))
        for group in groups:
            plan.fail(group, _failed_member(group.pk))
        return plan.write()


def stalled_groups(before: datetime | Combinable) -> Rows:
    """Groups that wait though none of their members is under way, and were heard of last before that instant.

    Their `total_count` is wrong, or whoever was to enqueue the other members did not.
    """
    here = OuterRef("pk")
    # Of members that a worker of django-i3tasks ran, only the tries tell.
    succeeded = Exists(rows(TaskExecutionTry).filter(task_execution=here, is_success=True))
    under_way = Exists(rows(TaskExecution).filter(~succeeded, task_group=here, outcome__isnull=True))
    # A group of these was written with all its members, and can't be short of any.
    is_whole = Exists(rows(TaskExecution).filter(part_of=here)) | Exists(rows(TaskGroup).filter(part_of=here))
    return rows(TaskGroup).filter(~under_way, ~is_whole, status=TaskGroup.STATUS_PENDING, updated_at__lt=before)


def _failed_member(group_id: int) -> int | None:
    """The first member that did not succeed, if any: what the group's failure callback is told."""
    members = rows(TaskExecution).filter(task_group=group_id).exclude(outcome=TaskExecution.Outcome.SUCCESS)
    return members.order_by("pk").values_list("pk", flat=True).first()

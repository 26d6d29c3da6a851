"""Groups that end before all their members have: closed, cancelled, or past their deadline."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Exists, F, OuterRef

from ..exceptions import ExecutionNotFound
from ..models import GroupSlice, TaskExecution, TaskExecutionTry, TaskGroup
from .cancel import cancel_workflow
from .database import DATABASE_TIME, Instant, Rows, atomic, database_time, rows, with_database_time
from .lock_timeout import attempting
from .locks import lock_groups
from .states import has_success
from .workflows import Plan


@attempting
def close_group(group_id: int, *, now: Instant = DATABASE_TIME) -> Sequence[TaskExecutionTry]:
    """Expect no more members than have ended: the group succeeds if none of them failed. Gives what follows."""
    with atomic():
        lock_groups([group_id], wait=True)
        pending = rows(TaskGroup).filter(pk=group_id, status=TaskGroup.STATUS_PENDING)
        group = with_database_time(pending, now).first()
        if group is None:
            return []
        group.total_count = group.completed_count + group.failed_count
        group.save(update_fields=["total_count", "updated_at"])
        plan = Plan(database_time(group))
        plan.decide(group)
        return plan.write()


@attempting
def cancel_group(group_id: int, *, now: Instant = DATABASE_TIME) -> Sequence[TaskExecutionTry]:
    """Cancel what is unfinished of the group: its members, the chains and groups that lead to them, its callback."""
    with atomic():
        tries = cancel_workflow(group_ids=[group_id], now=now)
        lock_groups([group_id], wait=True)
        group = with_database_time(rows(TaskGroup).filter(pk=group_id), now).first()
        if group is None:
            raise ExecutionNotFound(
                f"There is no group {group_id}: its transaction was rolled back, or it is deleted. Make it anew."
            )
        plan = Plan(database_time(group))
        plan.fail(group)
        return [*tries, *plan.write()]


def expire_groups(limit: int, *, now: Instant = DATABASE_TIME) -> Sequence[TaskExecutionTry]:
    """Fail pending groups whose deadline has passed. Gives what follows."""
    overdue = with_database_time(rows(TaskGroup).filter(status=TaskGroup.STATUS_PENDING, deadline__isnull=False), now)
    if not overdue.filter(deadline__lt=F("database_time")).exists():
        return []
    with atomic():
        late = overdue.filter(deadline__lt=F("database_time")).order_by("deadline")
        ids = set(late.values_list("pk", flat=True)[:limit])
        free = ids - lock_groups(ids, wait=False)
        groups = list(overdue.filter(pk__in=free).order_by("pk"))
        if not groups:
            return []
        plan = Plan(database_time(groups[0]))
        for group in groups:
            plan.fail(group)
        return plan.write()


def stalled_groups(before: Instant) -> Rows:
    """Groups that wait though none of their members is under way, and were heard of last before that instant.

    Their `total_count` is wrong, or the code that was to enqueue the other members did not.
    """
    here = OuterRef("pk")
    under_way = Exists(rows(TaskExecution).filter(~has_success(), task_group=here, outcome__isnull=True))
    # A group of these was written with all its members, and can't be short of any.
    is_whole = Exists(rows(TaskExecution).filter(part_of=here)) | Exists(rows(TaskGroup).filter(part_of=here))
    being_written = Exists(rows(GroupSlice).filter(task_group=here))
    return rows(TaskGroup).filter(
        ~under_way, ~is_whole, ~being_written, status=TaskGroup.STATUS_PENDING, updated_at__lt=before
    )

"""Large groups, written slice by slice: claims, settlements and heartbeats are served between two slices.

The settlement that opens such a group writes its first members, and slices with the others. A dispatcher writes one
slice after the other, each in a transaction that deletes the slice: if a process dies on the way, each member is still
written once. The group has the number of all its members from the beginning, so it can't be complete before that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from django.db import InterfaceError, OperationalError
from django.db.models import Q

from ..core.steps import groups_waited_for
from ..models import GroupSlice, TaskExecution, TaskExecutionTry
from ..telemetry import emit
from .database import DATABASE_TIME, Instant, atomic, database_time, locked, rows, unlocked, with_database_time
from .locks import lock_groups, lock_references
from .workflows import Plan, ending_in_group


def open_slice(*, now: Instant = DATABASE_TIME) -> Sequence[TaskExecutionTry] | None:
    """Write the members of one slice, and give their tries. None: there is no slice, or others have all of them locked.

    Of several groups, the one that has come least far is served first.
    """
    if not rows(GroupSlice).exists():
        return None
    with atomic():
        groups = set(rows(GroupSlice).values_list("task_group_id", flat=True).distinct())
        free = groups - lock_references(groups)
        while found := unlocked(_slices(free, now).order_by("first_index", "pk")[:1], to_delete=True):
            [members] = found
            if not lock_references({pk for member in members.members for pk in groups_waited_for(member)}):
                return _opened(members)
            free.discard(members.task_group_id)
        return None


def open_all_slices(group_ids: Collection[int], *, now: Instant) -> bool:
    """Write all members of these groups, waiting for locks. False: they have all been written already."""
    found: list[Any] = list(locked(_slices(group_ids, now), wait=True)) if has_slices(group_ids) else []
    for members in found:
        _write(members, sliced=False)
    return bool(found)


def has_slices(group_ids: Collection[int]) -> bool:
    """Whether members of these groups are still to be written."""
    return bool(group_ids) and rows(GroupSlice).filter(task_group__in=group_ids).exists()


def _slices(group_ids: Collection[int], now: Instant) -> Any:
    return with_database_time(rows(GroupSlice).filter(task_group__in=group_ids), now)


def _opened(members: Any) -> Sequence[TaskExecutionTry]:
    try:
        with atomic(savepoint=True):
            return _write(members, sliced=True)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        _halve(members, error)
        return []


def _write(members: Any, sliced: bool) -> Sequence[TaskExecutionTry]:
    plan = Plan(database_time(members), sliced=sliced)
    plan.travels_of_groups[members.task_group_id] = _travels_of(members.task_group_id)
    plan.add_members(
        members.task_group_id, members.members, cause=None, result=members.result, first_index=members.first_index
    )
    rows(GroupSlice).filter(pk=members.pk).delete()
    return plan.write()


def _travels_of(group_id: int) -> Any:
    """The context that travels with the group's members: that of the members which were written first."""
    written = rows(TaskExecution).filter(Q(task_group=group_id) | Q(part_of=group_id))
    return written.values_list("trace_context", flat=True).first()


def _halve(members: Any, error: Exception) -> None:
    """Make two slices of one with a member that the database refuses. Once that is alone, it is counted as failed."""
    if len(members.members) == 1:
        _lose(members, error)
        return
    half = len(members.members) // 2
    for first, some in ((0, members.members[:half]), (half, members.members[half:])):
        rows(GroupSlice).create(
            task_group_id=members.task_group_id,
            first_index=members.first_index + first,
            members=some,
            result=members.result,
        )
    rows(GroupSlice).filter(pk=members.pk).delete()


def _lose(members: Any, error: Exception) -> None:
    plan = Plan(database_time(members))
    plan.never_run(ending_in_group(members.members[0], members.task_group_id, members.first_index))
    if lock_groups(plan.tallies, wait=False):
        return  # another transaction has the group locked: later
    emit("internal_error", where="open_slice", error=f"{members}: {error!r}", exc_info=error)
    rows(GroupSlice).filter(pk=members.pk).delete()
    plan.write()

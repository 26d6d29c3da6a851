"""The one order in which rows are locked, and the locks themselves.

Tries, then executions, then groups, each by ascending primary key; and keys last, by ascending text. A group that fails
may fail the group that it is a part of: both are locked together, so that this order holds for them, too.

Slices of a large group come before these, and an act of the board after them. A schedule comes before its state.

Requests that many others wait for (claims, settlements, heartbeats, the dispatcher) leave out what another transaction
has locked, and come back to it later; a request that waits for no lock may take its rows in any order. Only calls in a
caller's own thread wait: cancel, retry, close, then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import TypeVar

from django.db import connections

from ..core.steps import groups_waited_for
from ..models import TaskExecution, TaskGroup
from .database import alias, atomic, locked, rows
from .workflows import readable_callback_steps

T = TypeVar("T")


class GoneOn(Exception):
    """The rows to lock together became more before all were locked: a worker has written a next step, for example."""


def locked_together(attempt: Callable[[], T]) -> T:
    """Call `attempt` in a transaction, and return its result.

    When it raises GoneOn, its savepoint is rolled back, which gives its locks back, and it is called again: locking the
    new rows after the others would break the order.
    """
    with atomic():
        while True:
            with suppress(GoneOn), atomic(savepoint=True):
                return attempt()


def lock_executions(ids: Collection[int], *, wait: bool) -> dict[int, TaskExecution]:
    """Lock these executions; those that another transaction has locked are left out, or waited for."""
    if not ids:
        return {}
    queryset = rows(TaskExecution).filter(pk__in=ids).defer("task_args", "task_kwargs")
    return {row.pk: row for row in locked(queryset, wait=wait)}


def lock_groups(ids: Collection[int], *, wait: bool) -> set[int]:
    """Lock these groups with all that may fail with them. Returns those of `ids` that are locked elsewhere.

    Groups that are over or deleted need no lock, and are not returned.
    """
    if not ids:
        return set()
    outer: dict[int, list[int]] = {}
    held: set[int] = set()
    while fresh := _pending_with_outer(ids, outer) - held:
        # More than one turn only if a step was added to a group between our look and our lock.
        rows_now = locked(rows(TaskGroup).filter(pk__in=fresh, status=TaskGroup.STATUS_PENDING), wait=wait)
        got = set(rows_now.values_list("pk", flat=True))
        if got != fresh and not wait:
            free = held | got
            return {pk for pk in ids if not _reach(pk, outer) & outer.keys() <= free}
        held |= fresh
    return set()


def lock_references(ids: Collection[int]) -> set[int]:
    """Keep these groups from being deleted, as a foreign key to them will. Returns those that are locked elsewhere.

    The foreign key of a new row would wait at COMMIT for a transaction that has its group locked FOR UPDATE.
    """
    if not ids or not connections[alias()].features.has_select_for_no_key_update:
        return set()
    table = connections[alias()].ops.quote_name(TaskGroup._meta.db_table)
    with connections[alias()].cursor() as cursor:
        cursor.execute(f"SELECT id FROM {table} WHERE id = ANY(%s) ORDER BY id FOR KEY SHARE SKIP LOCKED", [[*ids]])
        free = {pk for (pk,) in cursor.fetchall()}
    missing = set(ids) - free
    return set(rows(TaskGroup).filter(pk__in=missing).values_list("pk", flat=True)) if missing else missing


def _pending_with_outer(ids: Iterable[int], outer: dict[int, list[int]]) -> set[int]:
    """The pending ones of these groups and of those that fail with them. Puts into `outer` which fail with which."""
    outer.clear()
    looked_at: set[int] = set()
    while fresh := set(ids) - looked_at:
        found = rows(TaskGroup).filter(pk__in=fresh, status=TaskGroup.STATUS_PENDING)
        outer |= {group.pk: groups_waited_for(readable_callback_steps(group)) for group in found}
        looked_at |= fresh
        ids = {pk for waiting in outer.values() for pk in waiting}
    return set(outer)


def _reach(start: int, outer: dict[int, list[int]]) -> set[int]:
    found, fresh = {start}, {start}
    while fresh:
        fresh = {pk for group in fresh for pk in outer.get(group, ())} - found
        found |= fresh
    return found

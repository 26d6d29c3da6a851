"""What the admin can do to executions: cancel them, and give failed ones another try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from ..core.clock import current_clock
from ..exceptions import StoreUnavailable
from ..models import TaskExecution, TaskExecutionTry
from ..store.lock_timeout import LONGEST_LOCK, short_locks

BUSY = "Nothing was changed: another transaction holds one of these executions, or a group of theirs. Try again."


@admin.action(description="Cancel: what waits never runs, what runs is told", permissions=["act"])
def cancel_selected(modeladmin: Any, request: HttpRequest, queryset: QuerySet[TaskExecution]) -> None:
    """Ask for the selected executions to end."""
    from ..store.cancel import cancel  # with the action: whatever has an admin imports this module

    ids = list(queryset.filter(outcome__isnull=True).values_list("pk", flat=True))
    if _launched(modeladmin, request, lambda: cancel(ids)) is not None:
        modeladmin.message_user(request, f"Cancelled {len(ids)}; finished ones stay as they are.", messages.SUCCESS)


@admin.action(description="Retry: one more try for those that failed", permissions=["act"])
def retry_selected(modeladmin: Any, request: HttpRequest, queryset: QuerySet[TaskExecution]) -> None:
    """Give the selected executions that have failed one more try."""
    from ..store.cancel import retry_failed

    ids = list(queryset.values_list("pk", flat=True))
    tries = _launched(modeladmin, request, lambda: retry_failed(ids, now=current_clock().now()))
    if tries is not None:
        said = f"{len(tries)} will be tried again; the others have not failed."
        modeladmin.message_user(request, said, messages.SUCCESS)


def _launched(
    modeladmin: Any, request: HttpRequest, write: Callable[[], list[TaskExecutionTry]]
) -> list[TaskExecutionTry] | None:
    """Launch the tries that `write` gives. None if it waited too long for a lock, which the user is told."""
    from ..engine.launch import launch

    try:
        with short_locks(LONGEST_LOCK, BUSY):
            tries = write()
    except StoreUnavailable as error:
        modeladmin.message_user(request, str(error), messages.ERROR)
        return None
    launch(tries)
    return tries

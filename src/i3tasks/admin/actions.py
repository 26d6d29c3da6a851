"""The admin's actions on executions: cancel them, and give failed ones another try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from ..models import TaskExecution

if TYPE_CHECKING:
    from ..store.bulk import Act


@admin.action(description="Cancel: waiting ones never run, running ones are told to stop", permissions=["act"])
def cancel_selected(modeladmin: Any, request: HttpRequest, queryset: QuerySet[TaskExecution]) -> None:
    """Ask for the selected executions to end."""
    from ..store.bulk import Act  # late: every process with an admin imports this module

    _act(modeladmin, request, queryset, Act.CANCEL, "Cancelled {}.")


@admin.action(description="Retry: one more try for those that failed", permissions=["act"])
def retry_selected(modeladmin: Any, request: HttpRequest, queryset: QuerySet[TaskExecution]) -> None:
    """Give the selected executions that have failed one more try."""
    from ..store.bulk import Act

    _act(modeladmin, request, queryset, Act.RETRY, "{} will be tried again.")


def _act(modeladmin: Any, request: HttpRequest, queryset: QuerySet[TaskExecution], act: Act, done: str) -> None:
    """Act slice by slice, each a transaction of its own: "select all" may mean very many. Then tell the user."""
    from ..engine.bulk import act_on_named

    user: Any = request.user
    ids = list(queryset.values_list("pk", flat=True))
    progress = act_on_named(ids, act, by=str(user.get_username()))
    reasons = "; ".join(f"{reason} ({number:,})" for reason, number in progress.skipped.most_common())
    if not progress.done:
        modeladmin.message_user(request, f"Nothing was changed: {reasons or 'none was found'}.", messages.WARNING)
        return
    said = done.format(f"{progress.done:,}") + (f" Left alone: {reasons}." if reasons else "")
    modeladmin.message_user(request, said, messages.SUCCESS)

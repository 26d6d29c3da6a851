"""What the admin can do to executions: cancel them, and give failed ones another try."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from .clock import SYSTEM_CLOCK
from .engine.launch import launch
from .models import TaskExecution
from .store.cancel import cancel
from .store.revive import revive


@admin.action(description="Cancel: what waits never runs, what runs is told", permissions=["act"])
def cancel_selected(modeladmin: Any, request: HttpRequest, queryset: QuerySet[TaskExecution]) -> None:
    """Ask for the selected executions to end."""
    ids = list(queryset.filter(outcome__isnull=True).values_list("pk", flat=True))
    launch(cancel(ids))
    modeladmin.message_user(request, f"Cancelled {len(ids)}; finished ones stay as they are.", messages.SUCCESS)


@admin.action(description="Retry: one more try for those that failed", permissions=["act"])
def retry_selected(modeladmin: Any, request: HttpRequest, queryset: QuerySet[TaskExecution]) -> None:
    """Give the selected executions that have failed one more try."""
    tries = revive(list(queryset.values_list("pk", flat=True)), now=SYSTEM_CLOCK.now())
    launch(tries)
    modeladmin.message_user(request, f"{len(tries)} will be tried again; the others have not failed.", messages.SUCCESS)

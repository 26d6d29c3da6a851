"""Groups and keys in the admin. They can be read, and not changed."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from ..models import TaskExecution, TaskGroup, TaskKey
from .base import ReadOnly, Rows, of_execution
from .showing import call, link, step, steps

CALLS = (
    "callback_task_name",
    "callback_task_path",
    "callback_task_args",
    "callback_task_kwargs",
    "callback_chain",
    "callback_options",
    "on_failure",
)
"""The columns with the steps that follow a group: shown as calls."""


@admin.register(TaskGroup)
class TaskGroupAdmin(ReadOnly):
    """Executions whose success, all together, starts a callback."""

    list_display = (
        "id",
        "status",
        "total_count",
        "completed_count",
        "failed_count",
        "callback",
        "members",
        "created_at",
    )
    list_filter = ("status",)
    exclude = CALLS
    readonly_fields = ("created_at", "updated_at", "callback", "and_then", "if_one_fails", "members")

    @admin.display(empty_value="-")
    def callback(self, row: TaskGroup) -> str:
        if not row.callback_task_name:
            return ""
        names = row.callback_task_path, row.callback_task_name
        return call(*names, row.callback_task_args, row.callback_task_kwargs)

    @admin.display(description="after the callback", empty_value="-")
    def and_then(self, row: TaskGroup) -> str:
        return steps(row.callback_chain)

    @admin.display(empty_value="-")
    def if_one_fails(self, row: Any) -> str:
        return step(row.on_failure)

    @admin.display
    def members(self, row: TaskGroup) -> str:
        url = reverse("admin:i3tasks_taskexecution_changelist")
        return format_html('<a href="{}?task_group__id__exact={}">show</a>', url, row.pk)


@admin.register(TaskKey)
class TaskKeyAdmin(ReadOnly):
    """Idempotency keys, and those of tasks that are unique while unfinished."""

    list_display = ("key", "execution", "expires_at", "created_at")
    readonly_fields = ("created_at",)

    def get_queryset(self, request: HttpRequest) -> Rows:
        return super().get_queryset(request).defer(*of_execution()).select_related("task_execution")

    @admin.display
    def execution(self, row: TaskKey) -> str:
        return link(TaskExecution, row.task_execution_id, str(row.task_execution)) if row.task_execution_id else ""

"""Workers in the admin: the processes that run tries, dispatch or beat, as they said at their last heartbeat."""

from __future__ import annotations

from typing import Any

from django.contrib import admin

from ..core.clock import current_clock
from ..models import Worker
from .base import ReadOnly


@admin.register(Worker)
class WorkerAdmin(ReadOnly):
    """Each process keeps its own row. Those that stopped or died are deleted after a day."""

    list_display = (
        "id",
        "role",
        "state",
        "is_alive",
        "running",
        "concurrency",
        "queues",
        "host",
        "pid",
        "version",
        "release",
        "started_at",
        "heartbeat_at",
        "dispatched_at",
        "beat_at",
    )
    list_filter = ("role", "state")
    search_fields = ("id", "host")
    ordering = ("-heartbeat_at",)
    sortable = ("id", "running", "started_at", "heartbeat_at")

    @admin.display(boolean=True, description="alive")
    def is_alive(self, row: Any) -> bool:
        from ..store.workers import is_alive  # late: every process with an admin imports this module

        return is_alive(row, current_clock().now())

"""Tries and results in the admin. They can be read, and not changed."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html

from ..core.clock import current_clock
from ..dashboard.writing import span
from ..models import TaskExecution, TaskExecutionResult, TaskExecutionTry, TryState
from .base import ReadOnly, ReadOnlyInline, Rows, may_see_results, of_execution
from .filters import TryStateFilter
from .showing import link, short_result


class TryInline(ReadOnlyInline):
    """An execution's tries, with their errors and tracebacks."""

    model = TaskExecutionTry
    fields = (
        "try_number",
        "state",
        "asked_at",
        "run_after",
        "started_at",
        "finished_at",
        "wait",
        "duration",
        "worker_id",
        "outcome",
    )
    readonly_fields = fields
    ordering = ("try_number",)
    show_change_link = True
    verbose_name_plural = "tries"

    def get_queryset(self, request: HttpRequest) -> Rows:
        self._shows_results = may_see_results(request)
        return super().get_queryset(request).select_related("result")

    @admin.display
    def state(self, row: TaskExecutionTry) -> str:
        return state_of_try(row)

    @admin.display
    def wait(self, row: TaskExecutionTry) -> str:
        from ..dashboard.lines import wait_of  # late: every process with an admin imports this module

        return span(wait_of(row, current_clock().now()))

    @admin.display
    def duration(self, row: TaskExecutionTry) -> str:
        return _duration(row)

    @admin.display(description="result or error")
    def outcome(self, row: TaskExecutionTry) -> str:
        text = short_result(row) if self._shows_results else ""
        said = ": ".join(filter(None, [row.error_class, text]))
        if not (row.error_traceback and self._shows_results):  # its last line is the text of the error
            return said
        return format_html("<details><summary>{}</summary><pre>{}</pre></details>", said, row.error_traceback)


class ResultInline(ReadOnlyInline):
    """What a try returned, or the text of its error."""

    model = TaskExecutionResult
    fields = ("result", "text_of")


@admin.register(TaskExecutionTry)
class TaskExecutionTryAdmin(ReadOnly):
    """One attempt at an execution, with its result."""

    list_display = (
        "execution",  # first, as everywhere: a try's id alone reads like an execution's
        "id",
        "try_number",
        "state",
        "asked_at",
        "started_at",
        "finished_at",
        "duration",
        "error_class",
    )
    list_display_links = ("id",)
    list_filter = (TryStateFilter, "asked_at")
    exclude = ("error_traceback",)
    readonly_fields = ("asked_at", "created_at", "updated_at", "traceback")
    sortable = ("id", "asked_at")
    inlines = (ResultInline,)

    def get_queryset(self, request: HttpRequest) -> Rows:
        light = super().get_queryset(request).defer("error_traceback", *of_execution())
        return light.select_related("task_execution")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        found = super().get_readonly_fields(request, obj)
        return found if may_see_results(request) else [name for name in found if name != "traceback"]

    @admin.display
    def execution(self, row: TaskExecutionTry) -> str:
        return link(TaskExecution, row.task_execution_id, str(row.task_execution))

    @admin.display
    def state(self, row: TaskExecutionTry) -> str:
        return state_of_try(row)

    @admin.display
    def duration(self, row: TaskExecutionTry) -> str:
        return _duration(row)

    @admin.display
    def traceback(self, row: TaskExecutionTry) -> str:
        return format_html("<pre>{}</pre>", row.error_traceback) if row.error_traceback else "-"


@admin.register(TaskExecutionResult)
class TaskExecutionResultAdmin(ReadOnly):
    """What a finished try returned, or the text of its error."""

    list_display = ("id", "of_try", "shown")
    readonly_fields = ("created_at", "updated_at")

    def get_queryset(self, request: HttpRequest) -> Rows:
        heavy = ("error_traceback", *of_execution())
        light = super().get_queryset(request).defer(*(f"task_execution_try__{column}" for column in heavy))
        return light.select_related("task_execution_try__task_execution")

    @admin.display(description="try")
    def of_try(self, row: TaskExecutionResult) -> str:
        task_try = row.task_execution_try
        return link(TaskExecutionTry, task_try.pk, f"{task_try.task_execution}, try {task_try.try_number}")

    @admin.display(description="result")
    def shown(self, row: TaskExecutionResult) -> str:
        return short_result(row.task_execution_try)


def state_of_try(task_try: TaskExecutionTry) -> str:
    """The state of a try; `deferred` while its time is still to come."""
    state = TryState.of(task_try)
    now = current_clock().now()
    is_to_come = task_try.run_after is not None and task_try.run_after > now
    return "deferred" if state is TryState.PENDING and is_to_come else state.value


def _duration(row: TaskExecutionTry) -> str:
    from ..dashboard.lines import duration_of

    return span(duration_of(row, current_clock().now()))

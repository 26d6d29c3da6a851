"""The admin of what was asked for and what became of it: to read, not to change.

The tables grow to millions of rows, so no page counts them all, sorts them but by their keys, or asks once per row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import admin
from django.core.paginator import Paginator
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model, Prefetch, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.text import Truncator

from . import admin_schedules as admin_schedules
from .admin_actions import cancel_selected, retry_selected
from .clock import SYSTEM_CLOCK
from .conf import get_config
from .models import TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup, TaskKey
from .store.database import rows
from .store.reports import PENDING, shown_result, state_of

if TYPE_CHECKING:
    AnyModelAdmin = admin.ModelAdmin[Any]
    AnyInline = admin.TabularInline[Any, Any]
    AnyPaginator = Paginator[Any]
else:  # generic for type checkers only
    AnyModelAdmin, AnyInline, AnyPaginator = admin.ModelAdmin, admin.TabularInline, Paginator

Rows = QuerySet[Any]

MOST_ROWS = 10_000
HEAVY = ("task_args", "task_kwargs", "chain", "options", "trace_context")
"""What can be megabytes, and that no list shows."""


class BoundedPaginator(AnyPaginator):
    """Goes no further than MOST_ROWS rows: counting millions takes seconds. Filter or search for what is beyond."""

    @cached_property
    def count(self) -> int:
        shown: Any = self.object_list
        return int(shown.order_by()[:MOST_ROWS].count())


class ReadOnly(AnyModelAdmin):
    """Rows that only tasks write."""

    paginator = BoundedPaginator
    show_full_result_count = False
    ordering = ("-pk",)
    sortable: tuple[str, ...] = ("id",)
    list_per_page = 50

    def get_sortable_by(self, request: HttpRequest) -> tuple[str, ...]:
        return self.sortable

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ReadOnlyInline(AnyInline):
    """The same, on the page of what the rows belong to."""

    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class OutcomeFilter(admin.SimpleListFilter):
    """How executions ended; the unfinished and the failed by the tries' partial indexes."""

    title = "outcome"
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("unfinished", "Unfinished"), *((choice.value, str(choice.label)) for choice in TaskExecution.Outcome)]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        tries = rows(TaskExecutionTry).values("task_execution")
        if self.value() == "unfinished":
            unfinished = tries.filter(is_completed=False, finished_at__isnull=True)
            return queryset.filter(outcome__isnull=True, pk__in=unfinished)
        if self.value() == TaskExecution.Outcome.FAILED:
            failed = tries.filter(is_completed=True, is_success=False)
            return queryset.filter(outcome=self.value(), pk__in=failed)
        return queryset.filter(outcome=self.value()) if self.value() else queryset


class StateFilter(admin.SimpleListFilter):
    """The state of tries, by the partial indexes."""

    title = "state"
    parameter_name = "state"
    STATES = {
        "pending": Q(is_completed=False, started_at__isnull=True),
        "running": Q(is_completed=False, started_at__isnull=False, finished_at__isnull=True),
        "success": Q(is_completed=True, is_success=True),
        "failed": Q(is_completed=True, is_success=False),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state.capitalize()) for state in self.STATES]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        state = self.STATES.get(self.value() or "")
        return queryset if state is None else queryset.filter(state)


class QueueFilter(admin.SimpleListFilter):
    """The queues of I3TASKS."""

    title = "queue"
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in get_config().queues]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        if not self.value():
            return queryset
        is_default = self.value() == get_config().settings.default_queue.queue_name
        return queryset.filter(Q(queue_name=self.value()) | (Q(queue_name__isnull=True) if is_default else Q()))


class TryInline(ReadOnlyInline):
    """An execution's tries."""

    model = TaskExecutionTry
    fields = ("try_number", "state", "asked_at", "run_after", "started_at", "finished_at", "worker_id", "outcome")
    readonly_fields = fields
    ordering = ("try_number",)
    show_change_link = True

    def get_queryset(self, request: HttpRequest) -> Rows:
        return super().get_queryset(request).select_related("result").defer("error_traceback")

    @admin.display
    def state(self, row: TaskExecutionTry) -> str:
        return _state(row)

    @admin.display(description="result or error")
    def outcome(self, row: TaskExecutionTry) -> str:
        text = _short(shown_result(row)) if hasattr(row, "result") else ""
        return f"{row.error_class}: {text}" if row.error_class else text


class ResultInline(ReadOnlyInline):
    """What a try returned, or the text of its error."""

    model = TaskExecutionResult
    fields = ("result",)


@admin.register(TaskExecution)
class TaskExecutionAdmin(ReadOnly):
    """One requested run of a task, with its tries. The search takes an id, a uuid, or a task's name or path."""

    list_display = ("id", "task", "state", "tries", "queue_name", "group", "created_at", "finished_at")
    list_filter = (OutcomeFilter, QueueFilter, "created_at")
    search_fields = ("uuid", "task_name")
    search_help_text = "An id, a uuid, or the name of a task: send_email, shop.tasks.send_email"
    readonly_fields = ("uuid", "created_at", "updated_at", "next_step")
    sortable = ("id", "created_at")
    inlines = (TryInline,)
    actions = (cancel_selected, retry_selected)

    def has_act_permission(self, request: HttpRequest) -> bool:
        """Whoever may change executions may cancel and retry them, though no page edits their rows."""
        user: Any = request.user
        return bool(user.has_perm("i3tasks.change_taskexecution"))

    def get_queryset(self, request: HttpRequest) -> Rows:
        latest = rows(TaskExecutionTry).defer("error_traceback").order_by("-try_number")[:1]
        light = super().get_queryset(request).defer(*HEAVY)
        return light.prefetch_related(Prefetch("tries", latest, to_attr="latest"))

    def get_search_results(self, request: HttpRequest, queryset: Rows, search_term: str) -> tuple[Rows, bool]:
        return (queryset.filter(_named(search_term.strip())) if search_term.strip() else queryset), False

    @admin.display
    def task(self, row: TaskExecution) -> str:
        return f"{row.task_path}.{row.task_name}"

    @admin.display
    def state(self, row: Any) -> str:
        return str(row.outcome or (_state(row.latest[0]) if row.latest else "unknown"))

    @admin.display
    def tries(self, row: Any) -> int:
        return row.latest[0].try_number if row.latest else 0

    @admin.display
    def group(self, row: TaskExecution) -> str:
        return _link(TaskGroup, row.task_group_id) if row.task_group_id else ""

    @admin.display
    def next_step(self, row: TaskExecution) -> str:
        following = rows(TaskExecution).filter(previous=row.pk).values_list("pk", flat=True).first()
        return _link(TaskExecution, following) if following else "-"


@admin.register(TaskExecutionTry)
class TaskExecutionTryAdmin(ReadOnly):
    """One attempt at an execution, with its result."""

    list_display = ("id", "execution", "try_number", "state", "asked_at", "started_at", "finished_at", "error_class")
    list_filter = (StateFilter, "asked_at")
    exclude = ("error_traceback",)
    readonly_fields = ("asked_at", "created_at", "updated_at", "traceback")
    sortable = ("id", "asked_at")
    inlines = (ResultInline,)

    def get_queryset(self, request: HttpRequest) -> Rows:
        light = super().get_queryset(request).defer("error_traceback", *_of_execution(HEAVY))
        return light.select_related("task_execution")

    @admin.display
    def execution(self, row: TaskExecutionTry) -> str:
        return _link(TaskExecution, row.task_execution_id, str(row.task_execution))

    @admin.display
    def state(self, row: TaskExecutionTry) -> str:
        return _state(row)

    @admin.display
    def traceback(self, row: TaskExecutionTry) -> str:
        return format_html("<pre>{}</pre>", row.error_traceback) if row.error_traceback else "-"


@admin.register(TaskExecutionResult)
class TaskExecutionResultAdmin(ReadOnly):
    """What a finished try returned, or the text of its error."""

    list_display = ("id", "of_try", "shown")
    readonly_fields = ("created_at", "updated_at")

    def get_queryset(self, request: HttpRequest) -> Rows:
        heavy = ("error_traceback", *_of_execution(HEAVY))
        light = super().get_queryset(request).defer(*(f"task_execution_try__{column}" for column in heavy))
        return light.select_related("task_execution_try__task_execution")

    @admin.display(description="try")
    def of_try(self, row: TaskExecutionResult) -> str:
        task_try = row.task_execution_try
        return _link(TaskExecutionTry, task_try.pk, f"{task_try.task_execution}, try {task_try.try_number}")

    @admin.display(description="result")
    def shown(self, row: TaskExecutionResult) -> str:
        return _short(shown_result(row.task_execution_try))


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
    readonly_fields = ("created_at", "updated_at", "members")

    @admin.display
    def callback(self, row: TaskGroup) -> str:
        return f"{row.callback_task_path}.{row.callback_task_name}" if row.callback_task_name else ""

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
        return super().get_queryset(request).defer(*_of_execution(HEAVY)).select_related("task_execution")

    @admin.display
    def execution(self, row: TaskKey) -> str:
        return _link(TaskExecution, row.task_execution_id, str(row.task_execution)) if row.task_execution_id else ""


def _of_execution(columns: Iterable[str]) -> list[str]:
    return [f"task_execution__{column}" for column in columns]


def _named(term: str) -> Q:
    """The executions that a search term may mean."""
    try:
        return Q(uuid=UUID(term))
    except ValueError:
        pass
    if term.isdecimal():
        return Q(pk=int(term))
    module, _, function = term.rpartition(".")
    return Q(task_name=function, task_path=module) if module else Q(task_name=function)


def _state(task_try: TaskExecutionTry) -> str:
    state = state_of(task_try)
    is_deferred = state == PENDING and task_try.run_after is not None and task_try.run_after > SYSTEM_CLOCK.now()
    return "deferred" if is_deferred else state


def _short(value: Any) -> str:
    return Truncator(json.dumps(value, cls=DjangoJSONEncoder)).chars(200)


def _link(model: type[Model], pk: int | None, text: str = "") -> str:
    url = reverse(f"admin:i3tasks_{model._meta.model_name}_change", args=[pk])
    return format_html('<a href="{}">{}</a>', url, text or pk)

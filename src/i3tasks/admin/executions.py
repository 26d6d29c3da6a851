"""Executions in the admin. They can be read, cancelled and retried, and not changed.

The tables grow to millions of rows, so no page counts them all, sorts them by a column without an index, or makes a
query for each row.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import URLPattern, path, reverse

from ..core.clock import current_clock
from ..dashboard.writing import relative, span
from ..exceptions import SearchError
from ..models import HEAVY, TaskExecution, TaskGroup
from ..store.database import rows
from .actions import cancel_selected, retry_selected
from .base import ReadOnly, Rows
from .filters import SEARCHED, AskedFilter, ExecutionChanges, FoundPaginator, QueueFilter, StateFilter, search_of
from .showing import call, link, step, steps
from .tries import TryInline

ACTS = {"cancel": cancel_selected, "retry": retry_selected}
CALLS = ("task_name", "task_path", "task_args", "task_kwargs", "chain")
"""The columns of the call and of what follows it: shown as calls."""


@admin.register(TaskExecution)
class TaskExecutionAdmin(ReadOnly):
    """One requested run of a task, with its tries. The search takes an id, a uuid, or a task's name or path."""

    list_display = (
        "id",
        "task",
        "state",
        "tries",
        "queue",
        "created_at",
        "wait",
        "duration",
        "next_try",
        "error",
        "group",
    )
    list_filter = (StateFilter, QueueFilter, AskedFilter)
    linked = ("task_group",)
    search_fields = ("uuid", "task_name")
    search_help_text = "An id, a uuid, try:ID, or the name of a task: send_email, shop.tasks.send_email"
    exclude = CALLS
    readonly_fields = ("uuid", "created_at", "updated_at", "call", "and_then", "if_it_fails", "next_step")
    sortable = ()
    inlines = (TryInline,)
    actions = (cancel_selected, retry_selected)
    change_form_template = "admin/i3tasks/taskexecution/change_form.html"

    def has_act_permission(self, request: HttpRequest) -> bool:
        """Users who may change executions may cancel and retry them, though no page edits their rows."""
        user: Any = request.user
        return bool(user.has_perm("i3tasks.change_taskexecution"))

    def get_queryset(self, request: HttpRequest) -> Rows:
        from ..store.states import telling_try  # late: every process with an admin imports this module

        return super().get_queryset(request).defer(*HEAVY).prefetch_related(telling_try())

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ExecutionChanges

    def get_paginator(self, request: HttpRequest, queryset: Any, per_page: int, *args: Any, **kwargs: Any) -> Any:
        """The pages of a search, unless the address asks for something else as well, such as a group's members."""
        from ..store.search import Search

        try:
            search = search_of(request)
        except SearchError as error:
            raise IncorrectLookupParameters(error) from error
        others = {name for name in request.GET if name not in (*SEARCHED, SEARCH_VAR, "p", "o", "all", "e")}
        if search == Search() or others:
            paginator: Paginator[Any] = super().get_paginator(request, queryset, per_page, *args, **kwargs)
            return paginator
        return FoundPaginator(search, self.get_queryset(request), per_page)

    def get_search_results(self, request: HttpRequest, queryset: Rows, search_term: str) -> tuple[Rows, bool]:
        from ..store.search import Search

        try:
            search = search_of(request)
        except SearchError as error:
            raise IncorrectLookupParameters(error) from error
        named = Q() if search.keys is None else Q(pk__in=search.ids(current_clock().now()))
        return queryset.filter(named & Search(task=search.task).condition(current_clock().now())), False

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.act_view)
        own = path("<path:object_id>/act/", view, name="i3tasks_taskexecution_act")
        return [own, *super().get_urls()]

    def act_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Cancel or retry one execution, as its page asks; then show the page again."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        act = ACTS.get(request.POST.get("act", ""))
        if not self.has_act_permission(request) or act is None:
            raise PermissionDenied
        if object_id.isdecimal() and len(object_id) < 19:
            act(self, request, rows(TaskExecution).filter(pk=int(object_id)))
        return HttpResponseRedirect(reverse("admin:i3tasks_taskexecution_change", args=[object_id]))

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        shown = {**(extra_context or {}), "acts": [*ACTS] if self.has_act_permission(request) else []}
        return super().change_view(request, object_id, form_url, shown)

    @admin.display
    def task(self, row: TaskExecution) -> str:
        return f"{row.task_path}.{row.task_name}"

    @admin.display
    def state(self, row: Any) -> str:
        return str(row.line.state)

    @admin.display
    def tries(self, row: Any) -> int:
        return int(row.line.tries)

    @admin.display
    def queue(self, row: Any) -> str:
        return str(row.line.queue)

    @admin.display
    def wait(self, row: Any) -> str:
        return span(row.line.wait)

    @admin.display
    def duration(self, row: Any) -> str:
        return span(row.line.duration)

    @admin.display
    def next_try(self, row: Any) -> str:
        return relative(row.line.next_at, current_clock().now())

    @admin.display
    def error(self, row: Any) -> str:
        return ": ".join(filter(None, [row.line.error_class.rpartition(".")[2], row.line.error]))

    @admin.display
    def group(self, row: TaskExecution) -> str:
        return link(TaskGroup, row.task_group_id) if row.task_group_id else ""

    @admin.display
    def call(self, row: TaskExecution) -> str:
        return call(row.task_path, row.task_name, row.task_args, row.task_kwargs)

    @admin.display(description="after it", empty_value="-")
    def and_then(self, row: TaskExecution) -> str:
        return steps(row.chain)

    @admin.display(empty_value="-")
    def if_it_fails(self, row: TaskExecution) -> str:
        return step(row.options.get("on_failure")) if isinstance(row.options, dict) else ""

    @admin.display
    def next_step(self, row: TaskExecution) -> str:
        following = rows(TaskExecution).filter(previous=row.pk).values_list("pk", flat=True).first()
        return link(TaskExecution, following) if following else "-"

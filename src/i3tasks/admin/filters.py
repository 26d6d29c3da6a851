"""The filters of the lists, and the pages of executions that they find: by the search that the board has, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import SEARCH_VAR
from django.http import HttpRequest
from django.utils.functional import cached_property

from ..conf import get_config
from ..core.clock import current_clock
from ..exceptions import SearchError
from ..models import TryState
from . import base
from .base import AnsweredChanges, BoundedPaginator, Rows, may_see_results

if TYPE_CHECKING:
    from ..store.search import Search  # late at run time: every process with an admin imports this module

SEARCHED = ("state", "queue", "asked")
PERIODS = {"1h": "Past hour", "1d": "Past 24 hours", "7d": "Past 7 days", "30d": "Past 30 days"}


class SearchedFilter(admin.SimpleListFilter):
    """A field of the search."""

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        from ..store.search import Search

        now = current_clock().now()
        try:
            return queryset.filter(Search.parse({str(self.parameter_name): self.value() or ""}, now).condition(now))
        except SearchError as error:
            raise IncorrectLookupParameters(error) from error


class StateFilter(SearchedFilter):
    """The states of executions."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        from ..store.states import State

        return [(state.value, str(state.label)) for state in State]


class QueueFilter(SearchedFilter):
    """The queues of I3TASKS."""

    title = "queue"
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in get_config().queues]


class AskedFilter(SearchedFilter):
    """The time at which executions were asked for."""

    title = "asked for"
    parameter_name = "asked"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*PERIODS.items()]


class TryStateFilter(admin.SimpleListFilter):
    """The states of tries, by the partial indexes."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state.value, str(state.label)) for state in TryState]

    def queryset(self, request: HttpRequest, queryset: Rows) -> Rows:
        asked = self.value()
        return queryset.filter(TryState(asked).condition()) if asked in TryState.values else queryset


def search_of(request: HttpRequest) -> Search:
    """The search that the list's address describes. Raises SearchError."""
    from ..store.search import Search
    from ..store.search_terms import keys

    fields: dict[str, Any] = {name: request.GET.get(name, "") for name in SEARCHED}
    term = request.GET.get(SEARCH_VAR, "").strip()
    if term:
        try:
            keys([term])
            fields["id"] = term
        except SearchError:
            fields["task"] = term
    return Search.parse(fields, current_clock().now())


class FoundPaginator(BoundedPaginator):
    """Pages of what a search finds, newest first, each by a few short statements."""

    def __init__(self, search: Search, queryset: Rows, per_page: int, **options: Any) -> None:
        self._found = _Found(search, queryset)
        found: Any = self._found
        super().__init__(found, per_page, **options)

    @cached_property
    def count(self) -> int:
        return len(self._found.ids)


class _Found:
    """The executions that a search finds, as something to take slices of."""

    ordered = True

    def __init__(self, search: Search, queryset: Rows) -> None:
        self._search = search
        self._queryset = queryset

    @cached_property
    def ids(self) -> list[int]:
        """Looked for once, for the count and for the page."""
        return self._search.ids(current_clock().now(), most=base.MOST_ROWS)

    def _clone(self) -> list[Any]:
        """All of them: Django asks for that when they fit on one page."""
        return self[: base.MOST_ROWS]

    def __getitem__(self, part: slice) -> list[Any]:
        ids = self.ids[part]
        by_id = {row.pk: row for row in self._queryset.filter(pk__in=ids)}
        return [by_id[pk] for pk in ids if pk in by_id]


class ExecutionChanges(AnsweredChanges):
    """A list of executions with the lines that the board shows of them."""

    def get_results(self, request: HttpRequest) -> None:
        from ..dashboard.lines import lines
        from ..store.search import MOST_LOOKED_AT, Search

        paginator = self.model_admin.get_paginator(request, self.queryset, self.list_per_page)
        if isinstance(paginator, FoundPaginator):
            self.queryset: Any = paginator.object_list  # the bare conditions might read whole tables
        super().get_results(request)
        for line in lines(self.result_list, current_clock().now(), with_texts=may_see_results(request)):
            line.execution.line = line  # type: ignore[attr-defined]
        search = search_of(request)
        if search != Search() and not self.result_list and search.count(current_clock().now()).is_cut:
            said = f"None is among the newest {MOST_LOOKED_AT:,} that were looked at. `i3tasks list` looks further."
            self.model_admin.message_user(request, said, messages.WARNING)

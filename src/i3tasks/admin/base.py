"""Base classes of the admin's pages: rows to read, few queries, and an answer to every request and for every row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.options import BaseModelAdmin, IncorrectLookupParameters
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList
from django.core.paginator import Paginator
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DataError
from django.db.models import DateTimeField, Field, JSONField, Model, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

from ..dashboard.writing import instant
from ..models import HEAVY

if TYPE_CHECKING:
    AnyAdmin = BaseModelAdmin[Any]
    AnyModelAdmin = admin.ModelAdmin[Any]
    AnyInline = admin.TabularInline[Any, Any]
    AnyPaginator = Paginator[Any]
else:  # generic for type checkers only
    AnyAdmin, AnyModelAdmin, AnyInline, AnyPaginator = BaseModelAdmin, admin.ModelAdmin, admin.TabularInline, Paginator

Rows = QuerySet[Any]

MOST_ROWS = 10_000
LONGEST_QUERY = 2_000
"""Characters of the query of a list's address. Each link of the page repeats them."""
MOST_WORDS = 50
"""Words of a search. Each word adds a condition for each field that is searched."""


class BoundedPaginator(AnyPaginator):
    """Pages of the first MOST_ROWS rows: counting millions takes seconds. Filters and the search find the others."""

    @cached_property
    def count(self) -> int:
        shown: Any = self.object_list
        return int(shown.order_by()[:MOST_ROWS].count())


class AnsweredChanges(ChangeList):
    """A list that treats filters which the database refuses, and queries that are too long, like mistyped filters.

    Its rows are read at once, so that the database's error is raised here.
    """

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        if len(request.META.get("QUERY_STRING", "")) > LONGEST_QUERY:
            raise IncorrectLookupParameters(f"The query has more than {LONGEST_QUERY} characters.")
        if len(request.GET.get(SEARCH_VAR, "").split()) > MOST_WORDS:
            raise IncorrectLookupParameters(f"The search has more than {MOST_WORDS} words.")
        super().__init__(request, *args, **kwargs)

    def get_results(self, request: HttpRequest) -> None:
        try:
            super().get_results(request)
            self.result_list: Any = list(self.result_list)
        except (ValueError, OverflowError, DataError) as error:
            raise IncorrectLookupParameters(error) from error


class Readable(AnyAdmin):
    """Shows instants and JSON of any row: year 1 has no time in New York, and JSON may be too deep to write."""

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_fields(request, obj)
        return fields if self.has_change_permission(request, obj) else self._readable(fields)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self._readable(super().get_readonly_fields(request, obj))

    def _readable(self, names: Iterable[Any]) -> list[Any]:
        fields = {field.name: field for field in self.model._meta.fields}
        return [_shown_safely(fields[name]) if _needs_care(fields.get(name)) else name for name in names]


class ReadableList(Readable, AnyModelAdmin):
    """The same for lists, whose filters never end in an error, and whose pages never count a whole table."""

    paginator = BoundedPaginator
    show_full_result_count = False

    def get_list_display(self, request: HttpRequest) -> Any:
        return self._readable(super().get_list_display(request))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return AnsweredChanges


class ReadOnly(ReadableList):
    """Rows that only tasks and beats write."""

    ordering = ("-pk",)
    sortable: tuple[str, ...] = ("id",)
    linked: tuple[str, ...] = ()
    """Relations by which other pages link to this list."""
    list_per_page = 50

    def get_sortable_by(self, request: HttpRequest) -> Any:
        return self._readable(self.sortable)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """The fields that hold something, and folded below them the names of the empty fields."""
        names = list(self.get_fields(request, obj))
        empty = [] if obj is None else [name for name in names if self._is_empty(obj, name)]
        filled = [name for name in names if name not in empty]
        folded = [("Empty", {"fields": empty, "classes": ["collapse"]})] if empty else []
        return [(None, {"fields": filled}), *folded]

    def _is_empty(self, row: Any, name: Any) -> bool:
        own = getattr(name, "__name__", name)
        value = getattr(row, own) if hasattr(type(row), own) else getattr(self, own)(row)
        return value in (None, "", "-", [], {})

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """The filters that a page offers, and no others: a regular expression, say, may take the database hours."""
        name = lookup.partition("__")[0]
        ends = ("", "__exact", "__gte", "__lt", "__isnull")
        return name in self._filterable() and lookup in {f"{name}{end}" for end in (*ends, "__id__exact")}

    def _filterable(self) -> set[str]:
        offered = {str(getattr(item, "parameter_name", item)) for item in self.list_filter}
        return {"id", "pk", *self.linked, *offered}

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ReadOnlyInline(Readable, AnyInline):
    """Read-only rows on the page of the row that they belong to."""

    extra = 0
    can_delete = False

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self._readable(self.fields or ())

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def of_execution() -> list[str]:
    """The heavy columns of executions, named from rows that refer to an execution."""
    return [f"task_execution__{column}" for column in HEAVY]


def _needs_care(field: Any) -> bool:
    return isinstance(field, (DateTimeField, JSONField))


_displays: dict[Any, Callable[[Any], str | None]] = {}


def _shown_safely(field: Field[Any, Any]) -> Callable[[Any], str | None]:
    """A display function for the field; always the same one, because Django compares them."""
    if field not in _displays:
        write = instant if isinstance(field, DateTimeField) else _json

        @admin.display(description=str(field.verbose_name), ordering=field.name, empty_value="-")
        def display(row: Any) -> str | None:
            from ..store.concealing import column_of  # late: every process with an admin imports this module

            value = column_of(row, field.attname)
            return None if value is None else write(value)

        display.__name__ = field.name
        _displays[field] = display
    return _displays[field]


def _json(value: Any) -> str:
    try:
        return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=True)
    except RecursionError:
        return "(nested too deeply to be shown)"


def may_see_results(request: HttpRequest) -> bool:
    """Whether the user may see what tries returned, and the texts of their errors."""
    user: Any = request.user
    return bool(user.has_perm("i3tasks.view_taskexecutionresult"))

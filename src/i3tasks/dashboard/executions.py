"""The list of executions, by a filter that the address keeps."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from ..core.clock import current_clock
from ..exceptions import SearchError
from ..store.search import Page
from . import searching
from .access import ARGUMENTS, board_page, may
from .acting import LABELS
from .lines import lines
from .navigation import url
from .rendering import page

ON_A_PAGE = 50


@board_page
def executions(request: HttpRequest) -> HttpResponse:
    """Show the executions that match the filter, newest first."""
    now = current_clock().now()
    shows_values = may(request, ARGUMENTS)
    asked = searching.read(request, request.GET, now)
    found, problem = Page([]), asked.problem
    after = request.GET.get("after", "")
    if asked.search is not None:
        try:
            found = asked.search.page(now, limit=ON_A_PAGE, after=after)
        except SearchError as error:
            problem = str(error)
    return page(
        request,
        "executions",
        "executions",
        status=200 if not problem else 400,
        asked=asked,
        problem=problem,
        fields=list(asked.fields(with_argument=shows_values)),
        shortcuts=list(asked.shortcuts()),
        lines=lines(found.rows, now, with_texts=shows_values),
        count=asked.search.count(now) if asked.search is not None and not problem else None,
        is_cut=found.is_cut,
        following=url("executions", **asked.asked, after=found.following) if found.following else "",
        first=url("executions", **asked.asked) if after else "",
        acts=[(act.value, label) for act, label in LABELS.items()],
    )

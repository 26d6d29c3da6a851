"""Renders a page of the board in its frame."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from ..core.clock import current_clock
from .access import ACT, ARGUMENTS, may
from .places import PLACES

FOLDER = "i3tasks/board"
OF_UPDATES = "i3tasks-board"
"""The header by which live.js says that it is to update a page that is open."""


def page(request: HttpRequest, name: str, place: str, /, status: int = 200, **context: Any) -> HttpResponse:
    """The page made of the template `name`, with `place` lit up in the bar.

    Every template knows `now`, `may_act`, and `may_see_arguments`.
    """
    frame = {
        "places": PLACES,
        "place": place,
        "now": current_clock().now(),
        "may_act": may(request, ACT),
        "may_see_arguments": may(request, ARGUMENTS),
    }
    if request.headers.get("X-Requested-With") == OF_UPDATES:
        frame["messages"] = ()  # they are for the page that the user opens, and are gone once they were shown
    return render(request, f"{FOLDER}/{name}.html", frame | context, status=status)

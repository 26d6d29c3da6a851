"""Answers a POST of the board: tells the user, tells the log who did what, and leads back to a page."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import url_has_allowed_host_and_scheme

from ..telemetry import emit


def done(request: HttpRequest, act: str, target: str, count: int, said: str, back: str) -> HttpResponse:
    """Log the act, say `said`, and go to `next` of the form, or else to `back`."""
    emit("board_acted", user=name_of(request), act=act, target=target, count=count)
    messages.success(request, said, fail_silently=True)
    return HttpResponseRedirect(way_back(request, back))


def not_done(request: HttpRequest, said: str, back: str) -> HttpResponse:
    """Say why nothing was changed, and go back."""
    messages.error(request, said, fail_silently=True)
    return HttpResponseRedirect(way_back(request, back))


def name_of(request: HttpRequest) -> str:
    """The user's name, for the log."""
    user: Any = request.user
    return str(user.get_username())


def way_back(request: HttpRequest, otherwise: str) -> str:
    """The page that a POST came from, as its field `next` says; never one of another site."""
    asked = request.POST.get("next", "")
    hosts = {request.get_host()}
    is_ours = url_has_allowed_host_and_scheme(asked, allowed_hosts=hosts, require_https=request.is_secure())
    return asked if is_ours else otherwise

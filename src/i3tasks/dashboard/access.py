"""The access to the board: staff with permissions of its own may see it and act on it.

    i3tasks.view_board        the pages
    i3tasks.act_on_board      every button
    i3tasks.view_arguments    arguments, results, and stacks of what runs

Every view goes through `board_page`, `board_act` or `board_question`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from django.conf import settings as django_settings
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST, require_safe

VIEW, ACT, ARGUMENTS = "i3tasks.view_board", "i3tasks.act_on_board", "i3tasks.view_arguments"

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]


def board_page(view: View[P]) -> View[P]:
    """Let staff who may see the board GET the page. Visitors who are not signed in are sent to do so."""
    return require_safe(csrf_protect(_guarded(view, VIEW)))  # which gives the forms of the page their token


def board_act(view: View[P]) -> View[P]:
    """Let staff who may act on the board POST, with a CSRF token, also without Django's middleware."""
    return require_POST(csrf_protect(_guarded(view, VIEW, ACT)))


def board_question(view: View[P]) -> View[P]:
    """Let staff who may see arguments POST a request that shows more and changes no execution."""
    return require_POST(csrf_protect(_guarded(view, VIEW, ARGUMENTS)))


def may(request: HttpRequest, permission: str) -> bool:
    """Whether the request's user has the permission."""
    user: Any = request.user
    return bool(user.has_perm(permission))


def _guarded(view: View[P], *permissions: str) -> View[P]:
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        user: Any = request.user
        if not user.is_authenticated:
            return redirect_to_login(request.get_full_path(), _login_url())
        if not user.is_staff or not user.has_perms(permissions):
            raise PermissionDenied(f"The board asks for a member of staff with {' and '.join(permissions)}.")
        return view(request, *args, **kwargs)

    functools.update_wrapper(guarded, view)
    return never_cache(_outside_transactions(guarded))


def _outside_transactions(view: View[P]) -> View[P]:
    """Keep ATOMIC_REQUESTS off: an act commits what it says that it did."""
    for alias in django_settings.DATABASES:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def _login_url() -> str:
    """Where staff sign in: the admin, if the project has it."""
    try:
        return reverse("admin:login")
    except NoReverseMatch:
        return resolve_url(django_settings.LOGIN_URL)

"""Guards of the endpoints: they say who may call them, and with which method. Every endpoint has one of them."""

from __future__ import annotations

import functools
import hmac
from collections.abc import Callable, Coroutine
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import SuspiciousOperation
from django.db import InterfaceError, OperationalError, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from ..broker.auth.errors import RequestRefused
from ..conf import Config, Identity, get_config
from ..telemetry import emit
from ..types import I3TasksSettings

View = Callable[..., Coroutine[Any, Any, HttpResponse]]
Verify = Callable[[Config, str | None], Coroutine[Any, Any, Identity | None]]
"""Verifies a request by its `Authorization` header. Raises RequestRefused."""

BEARER = "Bearer "


def for_google_cloud(verify: Verify) -> Callable[[View], View]:
    """Let a view answer only POST requests whose sender is verified. They carry no CSRF token.

    The view is told the sender; None where no verification is asked for.

    An error of any kind is an answer, too: see `_problem`.
    """

    def decorate(view: View) -> View:
        @functools.wraps(view)
        async def guarded(request: HttpRequest) -> HttpResponse:
            try:
                sender = await verify(get_config(), request.META.get("HTTP_AUTHORIZATION"))
                return await view(request, sender)
            except RequestRefused as refusal:
                return _denied(request, refusal)
            except Exception as error:
                return refused(503, _problem(request, error))

        return csrf_exempt(_only("POST", outside_transactions(guarded)))

    return decorate


def for_monitors(token: Callable[[I3TasksSettings], str | None]) -> Callable[[View], View]:
    """Let a view answer only GET requests that bring the token, if one is set. Nothing is looked up before.

    The answers are never cached. An error of any kind is an answer, too: see `_problem`.
    """

    def decorate(view: View) -> View:
        @functools.wraps(view)
        async def guarded(request: HttpRequest, **kwargs: Any) -> HttpResponse:
            try:
                if not _brings(request, token(get_config().settings)):
                    return JsonResponse({"status": "unauthorized"}, status=401, headers={"WWW-Authenticate": "Bearer"})
                return await view(request, **kwargs)
            except SuspiciousOperation as error:  # more parameters than DATA_UPLOAD_MAX_NUMBER_FIELDS
                return refused(400, str(error))
            except Exception as error:
                return JsonResponse({"status": "critical", "problems": [_problem(request, error)]}, status=503)

        # They change nothing; a POST is to be told 405, and not that a CSRF token is missing.
        return never_cache(csrf_exempt(_only("GET", outside_transactions(guarded))))

    return decorate


def outside_transactions(view: View) -> View:
    """Keep ATOMIC_REQUESTS, of any database, off an async view."""
    for alias in django_settings.DATABASES:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def refused(status: int, error: str) -> HttpResponse:
    """The answer to a request that could not be carried out."""
    return JsonResponse({"status": "bad", "error": error}, status=status)


def _only(method: str, view: View) -> View:
    """Answer every other method with 405."""

    @functools.wraps(view)
    async def checked(request: HttpRequest, **kwargs: Any) -> HttpResponse:
        if request.method == method:
            return await view(request, **kwargs)
        response = refused(405, f"This endpoint answers {method} requests only.")
        response["Allow"] = method
        return response

    return checked


def _problem(request: HttpRequest, error: Exception) -> str:
    """Say what went wrong in a sentence. The traceback goes to the log, and never into an answer."""
    if isinstance(error, (OperationalError, InterfaceError)):
        return "the database gave no answer"
    emit("internal_error", where=request.path, error=repr(error), exc_info=error)
    return "an error that i3tasks did not expect; the log has its traceback"


def _denied(request: HttpRequest, refusal: RequestRefused) -> HttpResponse:
    emit("request_denied", path=request.path, status=refusal.status, reason=refusal.reason)
    response = refused(refusal.status, str(refusal))
    if refusal.status == 401:
        response["WWW-Authenticate"] = "Bearer"
    return response


def _brings(request: HttpRequest, token: str | None) -> bool:
    if not token:
        return True
    header = request.headers.get("Authorization", "")
    given = header.removeprefix(BEARER) if header.startswith(BEARER) else request.GET.get("token", "")
    return hmac.compare_digest(given.encode(), token.encode())

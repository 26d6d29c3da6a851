"""The HTTP doors for monitoring: is the task system well, and what became of one task?

    GET tasks-health/           200, or 503 when the status is critical
    GET tasks-status/<id>/      also with the uuid; 404 when there is no such execution

Both are open unless I3TASKS has a token for them; then a request brings it in a header, `Authorization: Bearer
<token>`, or in the query, `?token=<token>`.
"""

from __future__ import annotations

import functools
import hmac
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from .conf import get_config
from .store import reports
from .types import I3TasksSettings
from .views import outside_transactions

View = Callable[..., Coroutine[Any, Any, HttpResponse]]

BEARER = "Bearer "


def _for_monitors(token: Callable[[I3TasksSettings], str | None]) -> Callable[[View], View]:
    """GET only, never cached, and only with the token where there is one: nothing is looked up before."""

    def decorate(view: View) -> View:
        @functools.wraps(view)
        async def guarded(request: HttpRequest, **kwargs: Any) -> HttpResponse:
            if not _is_allowed(request, token(get_config().settings)):
                return JsonResponse({"status": "unauthorized"}, status=401, headers={"WWW-Authenticate": "Bearer"})
            try:
                return await view(request, **kwargs)
            except (OperationalError, InterfaceError):
                return JsonResponse({"status": "critical", "problems": ["the database gave no answer"]}, status=503)

        return never_cache(require_GET(outside_transactions(guarded)))

    return decorate


@_for_monitors(lambda settings: settings.health_token)
async def health(request: HttpRequest) -> HttpResponse:
    """How the task system as a whole is doing."""
    report = await reports.health()
    return JsonResponse(report, status=503 if report["status"] == reports.CRITICAL else 200)


@_for_monitors(lambda settings: settings.status_token or settings.health_token)
async def status(request: HttpRequest, **key: int | UUID) -> HttpResponse:
    """What became of the execution with this `id` or `uuid`."""
    report = await reports.status(**key)
    return JsonResponse({"status": "not_found"}, status=404) if report is None else JsonResponse(report)


def _is_allowed(request: HttpRequest, token: str | None) -> bool:
    if not token:
        return True
    header = request.headers.get("Authorization", "")
    given = header.removeprefix(BEARER) if header.startswith(BEARER) else request.GET.get("token", "")
    return hmac.compare_digest(given.encode(), token.encode())

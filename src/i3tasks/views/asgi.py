"""Answers pushes in front of Django, for ASGI: a small part of the CPU that Django's way to a view takes.

Django's handler starts two threads and three tasks for each request, which costs more than a short task itself. See
docs/deploying/push-cloud-run.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.conf import settings
from django.core.exceptions import DisallowedHost, ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, get_script_prefix, reverse

from ..conf import Identity
from ..telemetry import emit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
View = Callable[[Any], Awaitable[Any]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_SECONDS = 60.0
"""Time that a verified sender has for the whole body: what Django allows for one under ASGI."""
_FIELDS = {b"host": "HTTP_HOST", b"x-forwarded-host": "HTTP_X_FORWARDED_HOST", b"authorization": "HTTP_AUTHORIZATION"}
"""The header fields that say whether a push is let in, and their names in Django's requests."""
NO_PATH = (
    "with_push() does not find the URL i3tasks-push. Include i3tasks.urls in ROOT_URLCONF, or pass the path at which "
    'it is: with_push(application, path="/i3/tasks-push/").'
)


def with_push(application: Application, *, path: str | None = None) -> Application:
    """Answer pushes at `path` as the view does, without Django's middleware; give the rest to `application`.

    Without `path`, it is that of the URL `i3tasks-push`.
    """
    # Here, so that this module can be imported before get_asgi_application() sets Django up.
    from ..broker.auth.verification import verify_push
    from .guards import for_google_cloud

    view = for_google_cloud(verify_push)(_push)
    inner = _path(path)

    async def with_push_in_front(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and inner in (scope["path"], scope["path"].removeprefix(_prefix(scope))):
            await _answer(view, _Request(scope, receive), send)
        else:
            await application(scope, receive, send)

    return with_push_in_front


def _path(given: str | None) -> str:
    """The path below the script's name, which proxies take away or leave."""
    if given is not None:
        return given.removeprefix(_prefix({}))
    try:
        return f"/{reverse('i3tasks-push').removeprefix(get_script_prefix())}"
    except NoReverseMatch as error:
        raise ImproperlyConfigured(NO_PATH) from error


def _prefix(scope: Scope) -> str:
    """The script's name, as Django finds it."""
    return str(settings.FORCE_SCRIPT_NAME or scope.get("root_path") or "").rstrip("/")


class _Request(HttpRequest):
    """As much of Django's request as pushes need. Its body is received when it is asked for."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        # Without Django's own: it fills dictionaries of forms, cookies and files.
        self.method, self.path = scope["method"].upper(), scope["path"]
        server = scope.get("server") or ("unknown", 0)
        self.META = {"SERVER_NAME": server[0], "SERVER_PORT": str(server[1])}
        for name, value in scope["headers"]:
            if key := _FIELDS.get(name):
                text = value.decode("latin1")
                self.META[key] = f"{self.META[key]},{text}" if key in self.META else text
        self._receive = receive
        self.is_left = False
        """Whether its client is gone."""

    async def receive_body(self, most: int) -> bytes:
        """The body, or so much of it. Raises TimeoutError."""
        parts: list[bytes] = []
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await self._receive()
                self.is_left = message["type"] == "http.disconnect"
                parts.append(message.get("body", b"")[:most])
                most -= len(parts[-1])
                if self.is_left or not most or not message.get("more_body", False):
                    return b"".join(parts)


async def _answer(view: View, request: _Request, send: Send) -> None:
    response = _refusal_of_host(request) or await view(request)
    if request.is_left:
        return
    headers = [(name.lower().encode("latin1"), value.encode("latin1")) for name, value in response.items()]
    headers.append((b"content-length", b"%d" % len(response.content)))
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.content})


def _refusal_of_host(request: _Request) -> HttpResponse | None:
    """The refusal of a host that is not in ALLOWED_HOSTS, as Django's CommonMiddleware has it; else None."""
    from .guards import refused

    try:
        request.get_host()
    except DisallowedHost:
        emit("request_denied", path=request.path, status=400, reason="host")
        return refused(400, "The request is for a host that is not in ALLOWED_HOSTS.")
    return None


async def _push(request: _Request, sender: Identity | None) -> HttpResponse:
    """Do as the view does, with a body that is received only now that the sender is known."""
    from .guards import refused
    from .push import answer, most_bytes

    try:
        body = await request.receive_body(most_bytes() + 1)
    except TimeoutError:
        emit("envelope_refused", error=f"The request's body did not arrive within {BODY_SECONDS:g} s.")
        return refused(408, f"The request's body did not arrive within {BODY_SECONDS:g} s.")
    return refused(400, "The client is gone.") if request.is_left else await answer(body, sender)

"""The middleware that lets request headers travel with the calls that a request makes.

MIDDLEWARE = ["i3tasks.contrib.propagation.propagate_headers", ...]
I3TASKS = I3TasksSettings(propagate_headers=("x-request-id",))
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest

from ..conf import get_config
from ..telemetry.propagation import Travels, headers_of, travelling


class propagate_headers:  # named like a function, as Django's settings name middleware
    """Keep the headers of `propagate_headers` for the calls that are made while the request is answered."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Any) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if iscoroutinefunction(self):
            return self._answer(request)
        with travelling(_chosen(request)):
            return self._get_response(request)

    async def _answer(self, request: HttpRequest) -> Any:
        with travelling(_chosen(request)):
            return await self._get_response(request)


def _chosen(request: HttpRequest) -> Travels | None:
    headers = headers_of(request.headers, get_config().settings.propagate_headers)
    return {"headers": headers} if headers else None

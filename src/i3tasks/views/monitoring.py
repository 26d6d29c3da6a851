"""The endpoints for monitoring: how the task system is doing, its metrics, and what became of one execution.

    GET tasks-health/           200, or 503 when the status is critical
    GET tasks-metrics/          text for Prometheus; 501 without the package
    GET tasks-status/<id>/      also with the uuid; 404 when there is no such execution

All are open unless I3TASKS has a token for them. A request brings it in the header `Authorization: Bearer <token>`, or
as `?token=<token>`. An open status endpoint shows no arguments and no results, unless `status_shows_values` allows it.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, JsonResponse

from ..broker.publisher import get_publisher
from ..conf import get_config
from ..core.clock import current_clock
from ..store.health import CRITICAL
from ..store.health import health as health_of_tasks
from ..store.status import status as status_of
from ..types import I3TasksSettings
from .guards import for_monitors, refused

NOT_INSTALLED = 501


@for_monitors(lambda settings: settings.health_token)
async def health(request: HttpRequest) -> HttpResponse:
    """Answer how the task system as a whole is doing."""
    report = await health_of_tasks(current_clock().now(), broker_trouble=get_publisher().trouble)
    return JsonResponse(report, status=503 if report["status"] == CRITICAL else 200)


def metrics_token(settings: I3TasksSettings) -> str | None:
    """The token that metrics are given for, here and on the port of a worker."""
    return settings.metrics_token or settings.health_token


@for_monitors(metrics_token)
async def metrics(request: HttpRequest) -> HttpResponse:
    """Answer the counters of this process and the gauges of the rows, for Prometheus."""
    try:
        from ..contrib.prometheus.rendering import rendered
    except ImportError:
        return refused(NOT_INSTALLED, "The package is missing: pip install 'i3tasks[prometheus]'.")
    body, content_type = await sync_to_async(rendered)(request.headers.get("Accept", ""))
    return HttpResponse(body, content_type=content_type)


def _status_token(settings: I3TasksSettings) -> str | None:
    return settings.status_token or settings.health_token


@for_monitors(_status_token)
async def status(request: HttpRequest, **key: int | UUID) -> HttpResponse:
    """Answer what became of the execution with this `id` or `uuid`."""
    settings = get_config().settings
    report = await status_of(**key)
    if report is None:
        return JsonResponse({"status": "not_found"}, status=404)
    shows_values = settings.status_shows_values or _status_token(settings) is not None
    return JsonResponse(report if shows_values else _without_values(report))


def _without_values(report: dict[str, Any]) -> dict[str, Any]:
    """The report with null in the place of arguments and results."""
    tries = [{**facts, "result": None} for facts in report["tries"]]
    task = {**report["task"], "task_args": None, "task_kwargs": None}
    return {**report, "task": task, "tries": tries, "values_hidden": True}

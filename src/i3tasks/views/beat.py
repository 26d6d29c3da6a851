"""The endpoint for Cloud Scheduler: one POST each minute stands in for a worker's beat and dispatcher."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse

from ..broker.auth.verification import verify_beat
from ..conf import Identity
from ..engine.beat import beat_once, scheduled_time
from ..engine.push import dispatch, web_presence
from .guards import for_google_cloud, refused

NOT_NOW = 503


@for_google_cloud(verify_beat)
async def beat(request: HttpRequest, sender: Identity | None) -> HttpResponse:
    """Enqueue due schedules, publish what is due, and end the tries of workers that are gone."""
    scheduled = scheduled_time(request.headers.get("X-CloudScheduler-ScheduleTime"))
    problem = await beat_once(scheduled, web_presence().beaten)
    if not await dispatch() or problem:
        return refused(NOT_NOW, problem or "Not all that is due could be published. The log says why; it stays due.")
    return JsonResponse({"status": "ok"})

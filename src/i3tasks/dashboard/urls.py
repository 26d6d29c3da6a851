"""The pages of the board. Include them at any path: `path("i3/board/", include("i3tasks.dashboard.urls"))`."""

from django.urls import URLPattern, path

from ..views.later import later
from .navigation import NAMESPACE

app_name = NAMESPACE


def _page(route: str, home: str, view: str, name: str | None = None) -> URLPattern:
    """The view of that name in a module of this folder; `name` is that of the URL, where it is another."""
    return path(route, later(f"i3tasks.dashboard.{home}", view), name=name or view)


urlpatterns = [
    _page("", "overview", "overview"),
    _page("executions/", "executions", "executions"),
    _page("executions/<int:pk>/", "execution", "execution"),
    _page("executions/<int:pk>/stack/", "stacks", "ask_stack", "ask-stack"),
    _page("act/", "acting", "act"),
    _page("act/now/", "acting", "act_now", "act-now"),
    _page("acts/", "acting", "board_acts", "board-acts"),
    _page("acts/<int:pk>/", "acting", "board_act_page", "board-act"),
    _page("acts/<int:pk>/go-on/", "acting", "go_on", "go-on"),
    _page("acts/<int:pk>/stop/", "acting", "stop_act", "stop-act"),
    _page("groups/", "groups", "groups"),
    _page("groups/<int:pk>/", "groups", "group"),
    _page("groups/<int:pk>/close/", "groups", "close", "close-group"),
    _page("groups/<int:pk>/cancel/", "groups", "cancel", "cancel-group"),
    _page("tasks/", "tasks", "tasks"),
    _page("workers/", "workers", "workers"),
    _page("schedules/", "schedules", "schedules"),
    _page("schedules/run/", "schedules", "run_schedule", "run-schedule"),
    _page("schedules/switch/", "schedules", "switch_schedule", "switch-schedule"),
    _page("queues/", "queues", "queues"),
    _page("queues/pause/", "queues", "pause_queue", "pause-queue"),
    _page("queues/resume/", "queues", "resume_queue", "resume-queue"),
]

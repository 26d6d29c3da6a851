"""The pages of the board. Include them at any path: `path("i3/board/", include("i3tasks.dashboard.urls"))`."""

from django.urls import path

from .acting import act, act_now, board_act_page, board_acts, go_on, stop_act
from .execution import execution
from .executions import executions
from .groups import cancel, close, group, groups
from .navigation import NAMESPACE
from .overview import overview
from .queues import pause_queue, queues, resume_queue
from .schedules import run_schedule, schedules, switch_schedule
from .tasks import tasks
from .workers import workers

app_name = NAMESPACE

urlpatterns = [
    path("", overview, name="overview"),
    path("executions/", executions, name="executions"),
    path("executions/<int:pk>/", execution, name="execution"),
    path("act/", act, name="act"),
    path("act/now/", act_now, name="act-now"),
    path("acts/", board_acts, name="board-acts"),
    path("acts/<int:pk>/", board_act_page, name="board-act"),
    path("acts/<int:pk>/go-on/", go_on, name="go-on"),
    path("acts/<int:pk>/stop/", stop_act, name="stop-act"),
    path("groups/", groups, name="groups"),
    path("groups/<int:pk>/", group, name="group"),
    path("groups/<int:pk>/close/", close, name="close-group"),
    path("groups/<int:pk>/cancel/", cancel, name="cancel-group"),
    path("tasks/", tasks, name="tasks"),
    path("workers/", workers, name="workers"),
    path("schedules/", schedules, name="schedules"),
    path("schedules/run/", run_schedule, name="run-schedule"),
    path("schedules/switch/", switch_schedule, name="switch-schedule"),
    path("queues/", queues, name="queues"),
    path("queues/pause/", pause_queue, name="pause-queue"),
    path("queues/resume/", resume_queue, name="resume-queue"),
]

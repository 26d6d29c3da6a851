"""Schedules in the admin."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone

from i3tasks import schedule_task
from i3tasks.engine.beat import Beat
from i3tasks.models import ScheduleTick, TaskExecution, TaskExecutionTry, TaskSchedule
from i3tasks.types import I3TasksSettings, Schedule
from tests.shop.tasks import add
from tests.support.rigs import NotingPublisher

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

LIST = "admin:i3tasks_taskschedule_changelist"
FORM = {
    "name": "morning",
    "task_path": "tests.shop.tasks",
    "task_name": "add",
    "cron": "30 7 * * *",
    "time_zone": "Europe/Berlin",
    "args": "[1, 2]",
    "kwargs": "{}",
    "queue_name": "",
    "enabled": "on",
    "catch_up": "latest",
    "description": "",
}


@pytest.fixture
def admin() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def act(admin: Client, action: str) -> Any:
    chosen = list(TaskSchedule.objects.values_list("pk", flat=True))
    return admin.post(reverse(LIST), {"action": action, "_selected_action": chosen}, follow=True)


def test_a_schedule_is_made_and_runs(admin: Client) -> None:
    response = admin.post(reverse("admin:i3tasks_taskschedule_add"), FORM, follow=True)
    assert response.status_code == 200
    row = TaskSchedule.objects.get()
    assert (row.name, row.args, row.kwargs, row.time_zone) == ("morning", [1, 2], {}, "Europe/Berlin")

    Beat().pass_once(datetime(2026, 1, 5, 6, 30, tzinfo=UTC))
    assert TaskExecution.objects.count() == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cron": "61 * * * *"}, "can&#x27;t be &#x27;61&#x27;"),
        ({"time_zone": "Mars"}, "There is no time zone"),
        ({"task_name": "gone"}, "No task tests.shop.tasks.gone"),
        ({"args": "[1]"}, "missing a required argument"),
        ({"args": '{"a": 1}'}, "must be a list"),
        ({"kwargs": "[1]"}, "must be a dict"),
        ({"queue_name": "nowhere"}, "no queue"),
        ({"name": "taken"}, "I3TASKS has a schedule"),
    ],
)
def test_what_could_not_run_is_refused(admin: Client, fields: dict[str, str], said: str) -> None:
    taken = Schedule("tests.shop.tasks", "add", "@daily", [1, 2], name="taken")
    with override_settings(I3TASKS=I3TasksSettings(schedules=(taken,))):
        response = admin.post(reverse("admin:i3tasks_taskschedule_add"), {**FORM, **fields})
    assert said in response.content.decode()
    assert not TaskSchedule.objects.exists()


def test_the_list_shows_next_and_last_runs_in_few_queries(admin: Client, django_assert_max_num_queries: Any) -> None:
    for number in range(8):
        schedule_task(add, "0 0 1 1 *", name=f"yearly-{number}", args=[1, 2])
    Beat().pass_once(datetime(2026, 1, 1, tzinfo=UTC))
    TaskExecution.objects.update(outcome="failed")
    TaskSchedule.objects.filter(name="yearly-3").update(task_name="gone", cron="* * * * *")
    Beat().pass_once()

    with django_assert_max_num_queries(10):
        page = admin.get(reverse(LIST)).content.decode()
    assert f"{timezone.now().year + 1}-01-01 00:00 UTC" in page
    assert page.count("(failed)") == 8
    assert "No task tests.shop.tasks.gone" in page


def test_a_schedule_shows_its_next_five_and_last_runs(admin: Client) -> None:
    row = schedule_task(add, "* * * * *", args=[1, 2])
    Beat().pass_once()
    TaskExecution.objects.update(outcome="success")

    before = timezone.now()
    page = admin.get(reverse("admin:i3tasks_taskschedule_change", args=[row.pk])).content.decode()

    soon = [before + timedelta(minutes=minute) for minute in range(2, 6)]
    assert all(f"{slot:%Y-%m-%d %H:%M} UTC" in page for slot in soon)
    assert f"success (execution {TaskExecution.objects.get().pk})" in page


def test_switching_off_and_on(admin: Client) -> None:
    schedule_task(add, "* * * * *", args=[1, 2])
    act(admin, "disable")
    Beat().pass_once()
    assert not TaskExecution.objects.exists()

    act(admin, "enable")
    Beat().pass_once(timezone.now() + timedelta(minutes=1))
    assert TaskExecution.objects.count() == 1


def test_run_now(admin: Client, sent: NotingPublisher) -> None:
    schedule_task(add, "0 0 1 1 *", name="good", args=[1, 2], enabled=False)
    schedule_task(add, "0 0 1 1 *", name="bad", args=[1, 2])
    TaskSchedule.objects.filter(name="bad").update(task_name="gone")

    page = act(admin, "enqueue_now").content.decode()

    assert sent.try_ids == [TaskExecutionTry.objects.get().pk]
    assert ScheduleTick.objects.get().schedule_key == "good"
    assert "Enqueued good." in page
    assert "Did not enqueue bad: No task" in page


def test_deleting_takes_its_state_along(admin: Client) -> None:
    row = schedule_task(add, "* * * * *", args=[1, 2])
    Beat().pass_once()
    admin.post(reverse("admin:i3tasks_taskschedule_delete", args=[row.pk]), {"post": "yes"})
    assert not TaskSchedule.objects.exists()
    assert TaskExecution.objects.count() == 1


@pytest.mark.parametrize("model", ["schedulestate", "scheduletick"])
def test_what_beats_write_is_read_only(admin: Client, model: str) -> None:
    schedule_task(add, "* * * * *", args=[1, 2])
    Beat().pass_once()
    assert admin.get(reverse(f"admin:i3tasks_{model}_changelist")).status_code == 200
    assert admin.get(reverse(f"admin:i3tasks_{model}_add")).status_code == 403

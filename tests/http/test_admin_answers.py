"""The admin answers every request, shows every row, and shows users no more than they may see."""

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client, override_settings
from django.urls import reverse

from i3tasks.models import ScheduleState, ScheduleTick, TaskExecution, TaskExecutionTry, TaskSchedule
from tests.http.test_admin_schedules import FORM
from tests.support.history import a_try, ago, finished

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

MODELS = ["taskexecution", "taskexecutiontry", "taskexecutionresult", "taskgroup", "taskkey"]
MODELS += ["taskschedule", "schedulestate", "scheduletick"]
ADD = "admin:i3tasks_taskschedule_add"
EXTREMES = [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, tzinfo=UTC)]


@pytest.fixture
def admin() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def listed(model: str) -> str:
    return reverse(f"admin:i3tasks_{model}_changelist")


def page(model: str, pk: int) -> str:
    return reverse(f"admin:i3tasks_{model}_change", args=[pk])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "query",
    [
        {"q": "9" * 5000},
        {"q": "\x00"},
        {"q": "٣" * 30},
        {"queue": "\x00"},
        {"outcome": "\x00"},
        {"outcome": "nonsense"},
        {"state": "\x00"},
        {"status": "\x00"},
        {"id": "9" * 5000},
        {"id__exact": "x"},
        {"task_name": "\x00"},
        {"task_name__regex": "("},
        {"task_args__a__b": "\x00"},
        {"created_at__year": "99999"},
        {"created_at__gte": "9999-12-31 23:59:59+00:00"},
        {"created_at__lt": "0001-01-01 00:00:00+00:00"},
        {"asked_at__gte": "\x00"},
        {"enabled__exact": "\x00"},
        {"task_group__id__exact": "\x00"},
        {"task_execution__task_execution_try__result": "1"},
        {"p": "9" * 5000},
        {"o": "9.-9.x"},
        {"_facets": "\x00"},
        {"all": "", "e": "1"},
    ],
    ids=lambda query: "&".join(f"{key}={value[:5]!r}" for key, value in query.items()),
)
@override_settings(TIME_ZONE="America/New_York")
def test_no_filter_is_an_error_of_the_server(admin: Client, model: str, query: dict[str, str]) -> None:
    assert admin.get(listed(model), query).status_code in (200, 302, 400)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "UTC"])
@pytest.mark.parametrize("instant", EXTREMES)
def test_instants_at_the_ends_of_time_are_shown(admin: Client, zone: str, instant: datetime) -> None:
    row = finished("success", ago())
    TaskExecution.objects.update(created_at=instant, updated_at=instant, finished_at=instant)
    every = dict.fromkeys(("asked_at", "run_after", "started_at", "finished_at", "created_at"), instant)
    TaskExecutionTry.objects.update(**every)
    schedule = TaskSchedule.objects.create(name="s", task_path="a", task_name="b", cron="@daily")
    state = ScheduleState.objects.create(schedule_key="s", first_seen=instant, handled_until=instant)
    tick = ScheduleTick.objects.create(schedule_key="s", slot=instant)
    pages = {
        "taskexecution": row.pk,
        "taskexecutiontry": row.tries.get().pk,
        "taskschedule": schedule.pk,
        "schedulestate": state.pk,
        "scheduletick": tick.pk,
    }
    with override_settings(TIME_ZONE=zone):
        for model, pk in pages.items():
            assert admin.get(listed(model)).status_code == 200, model
            assert admin.get(page(model, pk)).status_code == 200, model


@pytest.mark.parametrize("field", ["args", "kwargs"])
@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 5000 + "1" + "}" * 5000,
        "9" * 5000,
        '["\\ud800"]',
        '{"\\udfff": 1}',
        '["\\u0000"]',
        "NaN",
        "[1e999]",
        "[",
        "\x00",
        "nul",
        "true",
        '"text"',
    ],
    ids=lambda text: repr(text[:12]),
)
def test_no_json_in_a_form_is_an_error_of_the_server(admin: Client, field: str, text: str) -> None:
    response = admin.post(reverse(ADD), {**FORM, field: text})
    assert response.status_code == 200
    assert "errorlist" in response.content.decode()
    assert not TaskSchedule.objects.exists()


def test_rows_that_are_nested_too_deeply_are_shown(admin: Client) -> None:
    row = finished("success", ago())
    # SQLite takes 1,000 levels, and Python reads some 900 of them.
    levels = 990 if connection.vendor == "sqlite" else 5000
    deep = "[" * levels + "]" * levels
    with connection.cursor() as cursor:
        cursor.execute("UPDATE i3tasks_taskexecution SET task_args = %s, task_kwargs = %s", [deep, deep])
        cursor.execute("UPDATE i3tasks_taskexecutionresult SET result = %s", [deep])
    for url in (page("taskexecution", row.pk), page("taskexecutiontry", row.tries.get().pk)):
        assert admin.get(url).status_code == 200
    assert admin.get(listed("taskexecutionresult")).status_code == 200

    guarded = replace(django_settings.I3TASKS, status_token="the token")
    with override_settings(I3TASKS=guarded):
        url = reverse("i3tasks-status", args=[row.pk])
        answer = admin.get(url, headers={"Authorization": "Bearer the token"})
    assert (answer.status_code, answer.json()["status"]) == (200, "success")
    # From Python 3.13 on the parser takes more levels than we show.
    shown = json.dumps(answer.json()["task"]["task_args"])
    assert "can't be read" in shown or '"..."' in shown


def test_results_are_seen_only_with_the_permission_to_see_them(django_user_model: Any) -> None:
    row = a_try("failed", result="a", error_traceback="Traceback\nValueError: the secret").task_execution
    a_try("failed", of=row, try_number=2, result="the secret")
    user = django_user_model.objects.create_user("staff", is_staff=True)
    seen = ["view_taskexecution", "view_taskexecutiontry"]
    client = Client()

    def shown() -> list[bool]:
        client.force_login(user)
        urls = page("taskexecution", row.pk), *(page("taskexecutiontry", one.pk) for one in row.tries.all())
        answers = [client.get(url) for url in urls]
        assert {answer.status_code for answer in answers} == {200}
        return ["the secret" in answer.content.decode() for answer in answers]

    user.user_permissions.set(Permission.objects.filter(codename__in=seen))
    assert shown() == [False] * 3
    user.user_permissions.add(Permission.objects.get(codename="view_taskexecutionresult"))
    assert shown() == [True] * 3


def test_the_form_of_schedules_imports_nothing(admin: Client) -> None:
    """A module of an installed app that no process of ours has imported, but whose import would do something."""
    module = "tests.shop.untouched"
    sys.modules.pop(module, None)
    answer = admin.post(reverse(ADD), {**FORM, "task": f"{module}.anything"})
    assert "No task tests.shop.untouched.anything is registered" in answer.content.decode()
    assert module not in sys.modules

    TaskSchedule.objects.create(name="s", task_path=module, task_name="anything", cron="@daily", args=[], kwargs={})
    chosen = list(TaskSchedule.objects.values_list("pk", flat=True))
    told = admin.post(listed("taskschedule"), {"action": "enqueue_now", "_selected_action": chosen}, follow=True)
    assert "Did not enqueue s" in told.content.decode()
    assert module not in sys.modules


def test_tasks_are_chosen_from_those_that_are_registered(admin: Client) -> None:
    html = admin.get(reverse(ADD)).content.decode()
    assert '<option value="tests.shop.tasks.add">' in html

    row = TaskSchedule.objects.create(name="s", task_path="gone", task_name="task", cron="@daily", args=[], kwargs={})
    assert '<option value="gone.task" selected>' in admin.get(page("taskschedule", row.pk)).content.decode()

"""Schedules in the admin."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone

from i3tasks import schedule_task, task
from i3tasks.engine.beat import Beat
from i3tasks.exceptions import StoreUnavailable
from i3tasks.models import ScheduleState, ScheduleTick, TaskExecution, TaskExecutionTry, TaskSchedule
from i3tasks.store.enqueue import enqueue
from i3tasks.store.lock_timeout import BUSY
from i3tasks.store.schedules import of_row
from i3tasks.store.ticks import run_now
from i3tasks.types import I3TasksSettings, Schedule
from tests.shop.tasks import add
from tests.store.helpers import open_transaction
from tests.support.rigs import NotingPublisher

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

LIST = "admin:i3tasks_taskschedule_changelist"
FORM = {
    "name": "morning",
    "task": "tests.shop.tasks.add",
    "cron": "30 7 * * *",
    "time_zone": "Europe/Berlin",
    "args": "[1, 2]",
    "kwargs": "{}",
    "queue_name": "",
    "enabled": "on",
    "catch_up": "latest",
    "description": "",
}


@task(unique=True)
def only_once() -> None:
    pass


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
        ({"task": "tests.shop.tasks.gone"}, "No task tests.shop.tasks.gone"),
        ({"task": "add"}, "errorlist"),
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


def test_last_runs_are_in_the_schedules_zone_and_so_are_next_ones(admin: Client) -> None:
    row = schedule_task(add, "30 7 1 1 *", args=[1, 2], time_zone="Asia/Tokyo")
    ScheduleTick.objects.create(schedule_key=row.name, slot=datetime(2025, 12, 31, 22, 30, tzinfo=UTC))

    for page in (reverse("admin:i3tasks_taskschedule_change", args=[row.pk]), reverse(LIST)):
        html = admin.get(page).content.decode()
        assert "2026-01-01 07:30 JST" in html
        assert f"{timezone.now().year + 1}-01-01 07:30 JST" in html


def test_nothing_is_wrong_before_anything_is_typed(admin: Client) -> None:
    html = admin.get(reverse("admin:i3tasks_taskschedule_add")).content.decode()

    assert "cron:" not in html
    assert "errorlist" not in html
    assert '<option value="tests.shop.tasks.add">' in html


def test_the_schedules_of_the_settings_are_listed_and_escaped(admin: Client) -> None:
    declared = Schedule("tests.shop.tasks", "add", "30 7 1 1 *", [1, 2], name="<b>own</b>", time_zone="Asia/Tokyo")
    with override_settings(I3TASKS=I3TasksSettings(schedules=(declared,))):
        ScheduleState.objects.create(schedule_key="<b>own</b>", first_seen=timezone.now())
        ScheduleTick.objects.create(schedule_key="<b>own</b>", slot=datetime(2025, 12, 31, 22, 30, tzinfo=UTC))
        html = admin.get(reverse(LIST)).content.decode()

    assert "&lt;b&gt;own&lt;/b&gt;" in html
    assert "<td>2026-01-01 07:30 JST (not finished)</td>" in html
    assert f"<td>{timezone.now().year + 1}-01-01 07:30 JST</td>" in html


def test_ticks_link_to_what_they_are_of_and_stay(admin: Client) -> None:
    row = schedule_task(add, "* * * * *", args=[1, 2])
    Beat().pass_once()
    tick = ScheduleTick.objects.get()

    html = admin.get(reverse("admin:i3tasks_scheduletick_changelist")).content.decode()

    assert reverse("admin:i3tasks_taskschedule_change", args=[row.pk]) in html
    assert reverse("admin:i3tasks_taskexecution_change", args=[tick.execution_id]) in html  # type: ignore[attr-defined]
    delete = reverse("admin:i3tasks_scheduletick_delete", args=[tick.pk])
    assert admin.post(delete, {"post": "yes"}).status_code == 403
    assert ScheduleTick.objects.exists()


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


def test_an_enabled_schedule_runs_no_slot_of_the_time_it_was_disabled(admin: Client) -> None:
    for name in ("was-off", "was-on"):
        schedule_task(add, "* * * * *", name=name, args=[1, 2], catch_up="all")
    TaskSchedule.objects.filter(name="was-off").update(enabled=False)
    an_hour_ago = timezone.now() - timedelta(hours=1)
    for name in ("was-off", "was-on"):
        row = TaskSchedule.objects.get(name=name)
        ScheduleState.objects.create(schedule_key=name, schedule=row, first_seen=an_hour_ago, handled_until=an_hour_ago)

    assert "2 enabled." in act(admin, "enable").content.decode()

    Beat().pass_once()
    assert ScheduleTick.objects.filter(schedule_key="was-off").count() <= 1  # a minute may have begun since
    assert ScheduleTick.objects.filter(schedule_key="was-on").count() >= 59


def test_run_now_of_a_call_that_another_transaction_enqueues_says_so(
    admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database gives no answer for the one schedule; the other one runs all the same."""
    for name in ("first", "second"):
        schedule_task(add, "0 0 1 1 *", name=name, args=[1, 2])

    def run(schedule: Any, *rest: Any) -> Any:
        if schedule.key == "first":
            raise StoreUnavailable(BUSY)
        return run_now(schedule, *rest)

    monkeypatch.setattr("i3tasks.store.ticks.run_now", run)
    response = act(admin, "enqueue_now")

    assert response.status_code == 200
    assert "Did not enqueue first: Another transaction has enqueued a call" in response.content.decode()
    assert "Enqueued second." in response.content.decode()
    assert ScheduleTick.objects.get().schedule_key == "second"


@pytest.mark.postgres
def test_run_now_of_a_unique_task_whose_key_is_held_says_so(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(enqueue.__kwdefaults__, "longest_wait", timedelta(milliseconds=20))
    row = schedule_task(only_once, "0 0 1 1 *", name="unique")
    key = of_row(row).call().key
    assert key is not None
    with open_transaction(
        f"INSERT INTO i3tasks_taskkey (key, token, created_at) VALUES ('{key.text}', '{uuid4()}', now())"
    ):
        response = act(admin, "enqueue_now")
    assert response.status_code == 200
    assert "Did not enqueue unique: Another transaction has enqueued a call" in response.content.decode()
    assert not TaskExecution.objects.exists()
    assert not ScheduleTick.objects.exists()


@pytest.mark.postgres
@pytest.mark.parametrize("action", ["enable", "disable"])
@pytest.mark.parametrize("table", ["i3tasks_taskschedule", "i3tasks_schedulestate"])
def test_a_schedule_that_another_transaction_holds_is_answered_with_a_sentence(
    admin: Client, monkeypatch: pytest.MonkeyPatch, action: str, table: str
) -> None:
    monkeypatch.setattr("i3tasks.store.lock_timeout.LONGEST_LOCK", timedelta(milliseconds=20))
    schedule_task(add, "0 0 1 1 *", name="held", args=[1, 2], enabled=action == "disable")
    Beat().pass_once()
    ScheduleState.objects.get_or_create(schedule_key="held", defaults={"first_seen": timezone.now()})
    with open_transaction(f"SELECT 1 FROM {table} FOR UPDATE"):
        response = act(admin, action)
    is_free = action == "disable" and table == "i3tasks_schedulestate"  # which counts on as before
    assert response.status_code == 200
    assert ("Nothing was changed" in response.content.decode()) is not is_free
    assert TaskSchedule.objects.get().enabled is (action == "disable" and not is_free)
    act(admin, action)
    assert TaskSchedule.objects.get().enabled is (action == "enable")


@pytest.mark.postgres
@pytest.mark.parametrize("table", ["i3tasks_taskschedule", "i3tasks_schedulestate"])
@pytest.mark.parametrize("door", ["change", "delete"])
def test_a_form_of_a_schedule_that_is_held_says_so(
    admin: Client, monkeypatch: pytest.MonkeyPatch, table: str, door: str
) -> None:
    for module in ("store.lock_timeout", "admin.forms"):
        monkeypatch.setattr(f"i3tasks.{module}.LONGEST_LOCK", timedelta(milliseconds=20))
    row = schedule_task(add, "0 0 1 1 *", name="morning", args=[1, 2])
    Beat().pass_once(datetime(2026, 1, 5, 6, 30, tzinfo=UTC))
    url = reverse(f"admin:i3tasks_taskschedule_{door}", args=[row.pk])
    typed = {**FORM, "description": "what was typed"} if door == "change" else {"post": "yes"}
    with open_transaction(f"SELECT 1 FROM {table} FOR UPDATE"):
        response = admin.post(url, typed, follow=True)
    page = response.content.decode()
    assert response.status_code == 200
    assert "Nothing was changed: another transaction is changing" in page
    assert ("what was typed" in page) is (door == "change")
    row.refresh_from_db()
    assert row.description == ""
    assert admin.post(url, typed).status_code == 302
    assert TaskSchedule.objects.filter(description="what was typed").count() == int(door == "change")


@pytest.mark.postgres
def test_a_schedule_whose_name_is_being_taken_says_so(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i3tasks.store.lock_timeout.LONGEST_LOCK", timedelta(milliseconds=20))
    names = "name, task_path, task_name, cron, args, kwargs, created_at, updated_at"
    values = "'morning', 'a', 'b', '* * * * *', '[]', '{}', now(), now()"
    with open_transaction(f"INSERT INTO i3tasks_taskschedule ({names}) VALUES ({values})"):
        response = admin.post(reverse("admin:i3tasks_taskschedule_add"), FORM, follow=True)
    assert "Nothing was changed: another transaction is changing" in response.content.decode()
    assert not TaskSchedule.objects.exists()

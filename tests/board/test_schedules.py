"""The page of the schedules: those of I3TASKS and of the database, switched on and off, and run now."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from i3tasks.engine.beat import Beat
from i3tasks.models import ScheduleState, ScheduleTick, TaskExecution, TaskSchedule
from i3tasks.store.schedules import known_schedules
from i3tasks.types import Schedule
from tests.support.history import ago, execution

pytestmark = pytest.mark.django_db

URL = "/i3/board/schedules/"


@pytest.fixture
def both(settings: Any) -> None:
    """A schedule in the settings and one in the database."""
    ours = Schedule("tests.shop.tasks", "add", "*/15 * * * *", [1, 2], name="quarterly", time_zone="Europe/Rome")
    settings.I3TASKS = replace(settings.I3TASKS, schedules=(ours,))
    TaskSchedule.objects.create(
        name="nightly", task_path="tests.shop.tasks", task_name="add", cron="30 3 * * *", args=[3, 4]
    )


def text_of(client: Client) -> str:
    return client.get(URL).content.decode()


def posted(client: Client, act: str, **fields: str) -> str:
    return client.post(f"{URL}{act}/", fields, follow=True).content.decode()


@pytest.mark.usefixtures("both")
def test_each_has_its_times_in_words_and_what_came_of_the_last(admin_client: Client) -> None:
    slot = ago(hours=1)
    tick = ScheduleTick.objects.create(schedule_key="nightly", slot=slot, execution=execution(outcome="failed"))
    ScheduleTick.objects.filter(pk=tick.pk).update(created_at=slot + timedelta(seconds=42))
    ScheduleTick.objects.create(schedule_key="nightly", slot=ago(hours=25))
    text = text_of(admin_client)
    assert "every 15 minutes" in text
    assert "at 03:30, every day" in text
    assert "Europe/Rome" in text
    assert text.count('class="sub nowrap"') == 10, "five slots each"
    assert " CE" in text, "in the schedule's own zone"
    assert f'<a href="/i3/board/executions/{tick.execution_id}/">failed' in text
    assert "42 s late" in text
    assert "deleted" in text
    assert text.count("in I3TASKS") == 1
    assert text.count("in database") == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("both", "sent")
@pytest.mark.parametrize("key", ["quarterly", "nightly"])
def test_both_kinds_are_switched_off_and_on(admin_client: Client, key: str) -> None:
    def enabled() -> bool:
        return next(schedule.enabled for schedule in known_schedules() if schedule.key == key)

    assert f"{key} was on already." in posted(admin_client, "switch", schedule=key, enabled="1")
    assert f"{key} is off." in posted(admin_client, "switch", schedule=key, enabled="0")
    assert not enabled()
    assert f"{key} was off already." in posted(admin_client, "switch", schedule=key, enabled="0")
    Beat().pass_once(now=timezone.now() + timedelta(days=1))
    assert not TaskExecution.objects.filter(options__schedule=key).exists()
    assert f"{key} is on." in posted(admin_client, "switch", schedule=key, enabled="1")
    assert enabled()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("both", "sent")
def test_slots_of_the_time_in_which_it_was_off_are_not_run(admin_client: Client) -> None:
    TaskSchedule.objects.all().delete()
    began = timezone.now() - timedelta(days=2)
    ScheduleState.objects.create(schedule_key="quarterly", first_seen=began, handled_until=began)
    posted(admin_client, "switch", schedule="quarterly", enabled="0")
    posted(admin_client, "switch", schedule="quarterly", enabled="1")
    Beat().pass_once(now=timezone.now())
    assert not TaskExecution.objects.exists()
    Beat().pass_once(now=timezone.now() + timedelta(minutes=16))
    assert TaskExecution.objects.exists()


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize("key", ["quarterly", "nightly"])
def test_both_kinds_are_run_now(admin_client: Client, key: str) -> None:
    assert f"{key} is enqueued." in posted(admin_client, "run", schedule=key)
    options = TaskExecution.objects.get().options
    assert options is not None
    assert options["schedule"] == key


def test_what_can_not_be_done_is_said(admin_client: Client, settings: Any) -> None:
    off = Schedule("tests.shop.tasks", "add", "* * * * *", [1, 2], name="off", enabled=False)
    settings.I3TASKS = replace(settings.I3TASKS, schedules=(off,))
    TaskSchedule.objects.create(name="broken", task_path="no", task_name="<b>", cron="x")
    assert "I3TASKS has enabled=False" in posted(admin_client, "switch", schedule="off", enabled="1")
    assert "broken was not enqueued: " in posted(admin_client, "run", schedule="broken")
    assert "There is no such schedule." in posted(admin_client, "run", schedule="none")
    assert "There is no such schedule." in posted(admin_client, "switch", schedule="none")
    text = text_of(admin_client)
    assert "no.&lt;b&gt;" in text
    assert "<b>.no" not in text
    assert not TaskExecution.objects.exists()

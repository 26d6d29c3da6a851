"""POST tasks-beat: the slot that Cloud Scheduler names is the one that is run."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from i3tasks import schedule_task
from i3tasks.models import ScheduleState, ScheduleTick, TaskExecution, TaskExecutionTry
from tests.shop.tasks import add
from tests.support.rigs import NotingPublisher

pytestmark = [pytest.mark.django_db(transaction=True)]

BEAT = reverse("i3tasks-beat")
AN_HOUR = timedelta(hours=1)
HOUR = timezone.now().replace(minute=0, second=0, microsecond=0) - 3 * AN_HOUR


@pytest.fixture(autouse=True)
def hourly(sent: NotingPublisher) -> None:
    schedule_task(add, "@hourly", name="hourly", args=[1, 2])


def post(scheduled: str | None = None) -> Any:
    headers = {} if scheduled is None else {"X-CloudScheduler-ScheduleTime": scheduled}
    return Client().post(BEAT, headers=headers)


def slots() -> list[datetime]:
    return list(ScheduleTick.objects.order_by("slot").values_list("slot", flat=True))


def seen_long_ago() -> None:
    """The schedule was first seen three hours before the slot that the tests name."""
    post()
    ScheduleTick.objects.all().delete()
    TaskExecution.objects.all().delete()
    earlier = {"first_seen": HOUR - 3 * AN_HOUR, "handled_until": HOUR - 3 * AN_HOUR + timedelta(minutes=1)}
    ScheduleState.objects.update(**earlier)


def test_the_header_names_the_slot(sent: NotingPublisher) -> None:
    seen_long_ago()
    assert post(HOUR.isoformat()).json() == {"status": "ok"}

    assert slots() == [HOUR]
    assert TaskExecutionTry.objects.get().pk in sent.try_ids


def test_sent_twice_it_is_run_once() -> None:
    seen_long_ago()
    for _ in range(2):
        post(HOUR.isoformat())
    post((HOUR - AN_HOUR).isoformat())

    assert slots() == [HOUR]
    assert TaskExecution.objects.count() == 1


def test_late_it_is_run_all_the_same() -> None:
    seen_long_ago()
    post((HOUR - timedelta(minutes=1)).isoformat())
    post((HOUR + timedelta(seconds=70)).isoformat())

    assert slots() == [HOUR - AN_HOUR, HOUR]


@pytest.mark.parametrize("header", ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2000-01-01T00:00:00Z"])
def test_first_seen_is_the_databases_time_whatever_the_header_says(header: str) -> None:
    """Else the first beat of a new schedule would poison it, or run all its slots since then."""
    schedule_task(add, "* * * * *", name="often", args=[1, 2], catch_up="all")
    for _ in range(2):
        assert post(header).status_code == 200

    assert all(timezone.now() - state.first_seen < timedelta(minutes=2) for state in ScheduleState.objects.all())
    assert 1 <= TaskExecution.objects.filter(schedule_ticks__schedule_key="often").count() <= 2


@pytest.mark.parametrize("header", [None, "nonsense", "9999-01-01T00:00:00Z"])
def test_without_a_header_that_makes_sense_it_is_now(header: str | None) -> None:
    schedule_task(add, "* * * * *", name="often", args=[1, 2])
    post(header)

    slot = ScheduleTick.objects.get(schedule_key="often").slot
    assert abs(slot - timezone.now()) < timedelta(minutes=2)
    assert all(state.handled_until <= timezone.now() for state in ScheduleState.objects.all())


def test_without_the_database_cloud_scheduler_is_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise OperationalError("away")

    monkeypatch.setattr("i3tasks.engine.beat.known_schedules", away)
    response = post()
    assert (response.status_code, response.json()["status"]) == (503, "bad")


def test_an_error_of_ours_is_a_503_too(monkeypatch: pytest.MonkeyPatch, events: list[str]) -> None:
    def bug() -> Any:
        raise RuntimeError("bug")

    monkeypatch.setattr("i3tasks.engine.beat.known_schedules", bug)
    response = post()
    assert (response.status_code, response.json()["status"]) == (503, "bad")
    assert "internal_error" in events


def test_so_is_one_of_the_dispatcher(monkeypatch: pytest.MonkeyPatch, events: list[str]) -> None:
    def bug(*_: Any) -> Any:
        raise RuntimeError("bug")

    monkeypatch.setattr("i3tasks.engine.dispatcher.take_due", bug)
    assert post().status_code == 503
    assert "internal_error" in events

"""POST tasks-beat: the slot that Cloud Scheduler names is the one that is run."""

from datetime import UTC, datetime, timedelta
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
NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def hourly(sent: NotingPublisher) -> None:
    schedule_task(add, "@hourly", name="hourly", args=[1, 2])


def post(scheduled: str | None = None) -> Any:
    headers = {} if scheduled is None else {"X-CloudScheduler-ScheduleTime": scheduled}
    return Client().post(BEAT, headers=headers)


def slots() -> list[datetime]:
    return list(ScheduleTick.objects.order_by("slot").values_list("slot", flat=True))


def test_the_header_names_the_slot(sent: NotingPublisher) -> None:
    assert post("2026-06-01T12:00:00Z").json() == {"status": "ok"}

    assert slots() == [NOON]
    assert sent.try_ids == [TaskExecutionTry.objects.get().pk]


def test_sent_twice_it_is_run_once() -> None:
    for _ in range(2):
        post("2026-06-01T12:00:00Z")
    post("2026-06-01T11:00:00Z")

    assert slots() == [NOON]
    assert TaskExecution.objects.count() == 1


def test_late_it_is_run_all_the_same() -> None:
    post("2026-06-01T12:59:00Z")
    post("2026-06-01T13:01:10Z")

    assert slots() == [NOON + timedelta(hours=1)]


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

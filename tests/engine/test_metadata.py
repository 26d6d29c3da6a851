"""What a bound body is told about its run, beside what its message says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from i3tasks import TaskMetadata, schedule_task, task
from i3tasks.models import ScheduleTick, TaskExecution, TaskExecutionTry
from i3tasks.testing import advance, drain

pytestmark = pytest.mark.django_db

seen: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


@task(bind=True, max_retries=1)
def note_run(task_metadata: TaskMetadata | None = None) -> None:
    assert task_metadata is not None
    seen.append(task_metadata)


@task(bind=True, max_retries=1)
def note_error(task_metadata: TaskMetadata | None = None) -> None:
    assert task_metadata is not None
    seen.append((task_metadata.previous_error, task_metadata.is_last_try))
    raise LookupError("no such order")


@task(bind=True, max_retries=1)
async def anote_error(task_metadata: TaskMetadata | None = None) -> None:
    assert task_metadata is not None
    seen.append((await task_metadata.aget_previous_error(), task_metadata.is_last_try))
    raise LookupError("no such order")


@task(bind=True)
def cancel_itself(task_metadata: TaskMetadata | None = None) -> None:
    assert task_metadata is not None
    seen.append(task_metadata.is_cancelled(refresh=True))
    TaskExecution.objects.filter(pk=task_metadata.task_execution_id).update(cancel_requested_at=timezone.now())
    seen.extend([task_metadata.is_cancelled(), task_metadata.is_cancelled(refresh=True), task_metadata.is_cancelled()])


@task(bind=True)
async def lose_itself(task_metadata: TaskMetadata | None = None) -> None:
    assert task_metadata is not None
    seen.append(await task_metadata.ais_cancelled())
    lost = TaskExecutionTry.objects.filter(pk=task_metadata.task_execution_try_id)
    await lost.aupdate(is_completed=True)
    seen.append(await task_metadata.ais_cancelled())
    await lost.aupdate(is_completed=False)


def test_when_it_was_to_run() -> None:
    note_run.delay()
    due = timezone.now() + timedelta(hours=1)
    note_run.using(run_after=due).delay()
    drain()
    advance(timedelta(hours=2))
    drain()
    assert [metadata.run_after for metadata in seen] == [None, due]
    assert [(metadata.schedule, metadata.slot) for metadata in seen] == [(None, None)] * 2


def test_which_schedule_made_it_and_for_when() -> None:
    schedule_task(note_run, "@hourly", name="hourly")
    drain(schedules=True)
    advance(timedelta(hours=1))
    drain(schedules=True)
    slots = [tick.slot for tick in ScheduleTick.objects.order_by("slot")]  # two, if an hour ended meanwhile
    assert slots
    assert [(metadata.schedule, metadata.slot) for metadata in seen] == [("hourly", slot) for slot in slots]


@pytest.mark.parametrize("made", [note_error, anote_error], ids=lambda made: made.spec.func_name)
def test_what_ended_the_try_before(made: Any) -> None:
    made.delay()
    drain()
    advance(timedelta(minutes=5))
    drain()
    assert seen == [(None, False), ("LookupError: no such order", True)]


def test_whether_it_is_cancelled_is_asked_for_when_it_must_be_known_now() -> None:
    cancel_itself.delay()
    drain()
    assert seen == [False, False, True, True]


def test_a_lost_lease_is_known_too() -> None:
    lose_itself.delay()
    drain()
    assert seen == [False, True]

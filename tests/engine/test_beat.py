"""The beat: broken schedules, unique tasks, outages, and where it runs."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import OperationalError
from django.test import override_settings
from django.utils import timezone
from psycopg import errors

from i3tasks import adelete_schedule, aschedule_task, schedule_task, task
from i3tasks.engine import beat as beat_module
from i3tasks.engine.beat import Beat, scheduled_time
from i3tasks.models import ScheduleState, ScheduleTick, TaskExecution, TaskExecutionTry, TaskSchedule
from i3tasks.store.health import health
from i3tasks.types import I3TasksSettings, Schedule
from tests.shop.tasks import add
from tests.support.rigs import NotingPublisher, afinished, auntil, working

pytestmark = [pytest.mark.django_db(transaction=True)]

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def broken_schedules() -> dict[str, str]:
    """Key and error of each, as health reads them."""
    return dict(ScheduleState.objects.exclude(last_error="").values_list("schedule_key", "last_error"))


@task(unique=True)
def only_one() -> None: ...


@task(bind=True, priority=7, on_success=add.s(1, 2))
def bound(value: int, task_metadata: Any = None) -> int:
    return value


@pytest.mark.usefixtures("sent")
class TestBroken:
    """One broken schedule stops no other."""

    @pytest.fixture(autouse=True)
    def good(self) -> None:
        schedule_task(add, "* * * * *", name="z-good", args=[1, 2])

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"cron": "61 * * * *"}, "cron: The minute"),
            ({"cron": ""}, "cron: '' has 0 fields"),
            ({"time_zone": "Mars/Phobos"}, "time_zone: There is no"),
            ({"task_name": "gone"}, "No task tests.shop.tasks.gone"),
            ({"task_path": "os", "task_name": "system"}, "No task os.system"),
            ({"args": {"not": "a list"}}, "args: It must be a list"),
            ({"kwargs": [1]}, "kwargs: It must be a dict"),
            ({"args": [1, 2, 3]}, "don't fit the task"),
            ({"queue_name": "nowhere"}, "no queue 'nowhere'"),
            ({"catch_up": "some"}, "catch_up: It must be one of"),
        ],
    )
    def test_it_is_said_and_kept(self, fields: dict[str, Any], said: str, events: list[str]) -> None:
        values = {"task_path": "tests.shop.tasks", "task_name": "add", "cron": "* * * * *", "args": [1, 2]}
        TaskSchedule.objects.create(name="a-bad", **{**values, **fields})

        beat = Beat()
        for second in range(3):
            beat.pass_once(NOON + timedelta(seconds=second))

        assert list(ScheduleTick.objects.values_list("schedule_key", flat=True)) == ["z-good"]
        assert list(broken_schedules()) == ["a-bad"]
        assert said in broken_schedules()["a-bad"]
        assert events.count("schedule_broken") == 1, "not in each pass"

    def test_mended_it_catches_up_and_is_no_longer_listed(self) -> None:
        row = schedule_task(add, "@hourly", name="a-bad", args=[1, 2])
        TaskSchedule.objects.filter(pk=row.pk).update(task_name="gone")
        Beat().pass_once(NOON)
        assert "a-bad" in broken_schedules()

        TaskSchedule.objects.filter(pk=row.pk).update(task_name="add")
        Beat().pass_once(NOON + timedelta(minutes=30))

        assert broken_schedules() == {}
        assert ScheduleTick.objects.get(schedule_key="a-bad").slot == NOON

    def test_it_is_said_before_it_is_due(self, events: list[str]) -> None:
        schedule = Schedule("tests.shop.tasks", "gone", "@yearly", name="yearly")
        with override_settings(I3TASKS=I3TasksSettings(schedules=(schedule,))):
            Beat().pass_once(NOON)
            assert list(broken_schedules()) == ["yearly"]
        assert "schedule_broken" in events
        assert any("'yearly' can't be run" in problem for problem in async_to_sync(health)(NOON)["problems"])

    def test_as_long_as_it_is_broken_health_says_so(self) -> None:
        row = schedule_task(add, "@yearly", name="a-bad", args=[1, 2])
        TaskSchedule.objects.filter(pk=row.pk).update(task_name="gone")
        Beat().pass_once()
        ScheduleState.objects.update(last_error_at=timezone.now() - timedelta(hours=2))
        ScheduleState.objects.update(handled_until=timezone.now() - timedelta(hours=2))
        Beat().pass_once()
        said_at = ScheduleState.objects.get(schedule_key="a-bad").last_error_at
        assert said_at is not None
        assert said_at > timezone.now() - timedelta(hours=1)

    def test_a_disabled_one_is_not_listed(self) -> None:
        row = schedule_task(add, "* * * * *", name="a-bad", args=[1, 2])
        TaskSchedule.objects.filter(pk=row.pk).update(task_name="gone")
        Beat().pass_once(NOON)
        assert "a-bad" in broken_schedules()
        TaskSchedule.objects.filter(pk=row.pk).update(enabled=False)
        Beat().pass_once(NOON)
        assert broken_schedules() == {}


@pytest.mark.usefixtures("sent")
def test_a_unique_task_that_is_unfinished_is_not_enqueued_again(sent: NotingPublisher) -> None:
    schedule_task(only_one, "* * * * *", name="one")
    for minute in range(3):
        Beat().pass_once(NOON + minute * MINUTE)

    execution = TaskExecution.objects.get()
    assert [item.execution_id for item in ScheduleTick.objects.all()] == [execution.pk] * 3
    assert len(sent.try_ids) == 1


@pytest.mark.usefixtures("sent")
def test_the_tasks_own_options_count() -> None:
    schedule_task(bound, "* * * * *", args=[5])
    Beat().pass_once(NOON)

    execution = TaskExecution.objects.get()
    assert execution.priority == 7
    assert [step["func_name"] for step in execution.chain] == ["add"]


@override_settings(I3TASKS=I3TasksSettings(force_sync=True))
def test_with_force_sync_it_runs_at_once() -> None:
    schedule_task(add, "* * * * *", args=[1, 2])
    Beat().pass_once(NOON)

    assert TaskExecutionTry.objects.get().result.result == 3


@pytest.mark.usefixtures("sent")
def test_without_the_database_it_waits_and_goes_on(monkeypatch: pytest.MonkeyPatch, events: list[str]) -> None:
    schedule_task(add, "* * * * *", args=[1, 2])
    beat = Beat()

    def away() -> Any:
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(beat_module, "known_schedules", away)
        assert [beat.pass_once(NOON) for _ in range(2)] == [beat_module.OUTAGE_SECONDS] * 2
        assert beat.is_down
    assert events == ["beat_failed"]
    assert beat.pass_once(NOON) > 1
    assert not beat.is_down
    assert ScheduleTick.objects.count() == 1


@pytest.mark.usefixtures("sent")
def test_it_wakes_when_the_next_minute_begins() -> None:
    schedule_task(add, "@daily", args=[1, 2])
    assert Beat().pass_once(NOON + timedelta(seconds=20)) == beat_module.LONGEST_WAIT_SECONDS
    assert 4 <= Beat().pass_once(NOON + timedelta(seconds=56)) < 4.1


@pytest.mark.usefixtures("sent")
async def test_a_running_beat_sees_what_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beat_module, "LONGEST_WAIT_SECONDS", 0.01)
    running = asyncio.create_task(Beat().run())
    try:
        await aschedule_task(add, "* * * * *", name="new", args=[1, 2])
        async with asyncio.timeout(20):
            while not await ScheduleTick.objects.filter(schedule_key="new").aexists():
                await asyncio.sleep(0.02)
        assert await adelete_schedule("new")
    finally:
        running.cancel()
        await asyncio.wait({running})
    assert not await ScheduleState.objects.aexists()


@pytest.mark.usefixtures("on_embedded")
async def test_a_worker_beats() -> None:
    await sync_to_async(schedule_task)(add, "* * * * *", args=[20, 22])
    async with working():
        await afinished(1)
    execution = await TaskExecution.objects.afirst()
    assert execution is not None
    assert execution.outcome == "success"
    assert await execution.schedule_ticks.acount() == 1


def test_the_time_that_cloud_scheduler_names() -> None:
    assert scheduled_time(None) is None
    assert scheduled_time("2026-01-01T12:00:00Z") == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert scheduled_time("2026-01-01T14:00:00.123456789+02:00") == datetime(
        2026, 1, 1, 12, microsecond=123456, tzinfo=UTC
    )
    assert scheduled_time("soon") is None
    assert scheduled_time("0001-01-01T00:00:00+10:00") is None


@pytest.mark.parametrize("far", [-timedelta(days=1, seconds=1), MINUTE])
def test_a_time_far_from_now_is_refused(far: timedelta, sent: NotingPublisher, events: list[str]) -> None:
    schedule_task(add, "* * * * *", name="often", args=[1, 2])
    for _ in range(2):
        Beat().pass_once(NOON, scheduled=NOON + far)

    assert events.count("schedule_time_refused") == 2
    assert list(ScheduleTick.objects.values_list("slot", flat=True)) == [NOON]


@pytest.mark.parametrize("first_seen", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)])
def test_whatever_a_state_holds_the_other_schedules_go_on(first_seen: datetime, sent: NotingPublisher) -> None:
    for name in ("a-poisoned", "b-good"):
        schedule_task(add, "* * * * *", name=name, args=[1, 2])
    ScheduleState.objects.create(schedule_key="a-poisoned", first_seen=first_seen)
    beat = Beat()
    beat.pass_once(NOON)

    assert beat.problem == ""
    assert list(ScheduleTick.objects.values_list("schedule_key", "slot")) == [("b-good", NOON)]


def test_a_lock_timeout_of_one_schedule_stops_no_other(sent: NotingPublisher, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a-locked", "b-good"):
        schedule_task(add, "* * * * *", name=name, args=[1, 2])
    tick = beat_module.tick

    def locked(schedule: Any, *args: Any) -> Any:
        if schedule.key == "a-locked":
            raise OperationalError("canceling statement due to lock timeout")
        return tick(schedule, *args)

    monkeypatch.setattr(beat_module, "tick", locked)
    beat = Beat()
    beat.pass_once(NOON)
    assert beat.problem == beat_module.NO_ANSWER
    assert list(ScheduleTick.objects.values_list("schedule_key", flat=True)) == ["b-good"]

    monkeypatch.undo()
    beat.pass_once(NOON)
    assert beat.problem == ""
    assert set(ScheduleTick.objects.values_list("schedule_key", flat=True)) == {"a-locked", "b-good"}


@pytest.mark.usefixtures("on_embedded")
async def test_a_bug_in_a_pass_ends_no_loop(monkeypatch: pytest.MonkeyPatch, events: list[str]) -> None:
    def bug() -> Any:
        raise RuntimeError("bug")

    monkeypatch.setattr(beat_module, "OUTAGE_SECONDS", 0.0)
    monkeypatch.setattr(beat_module, "known_schedules", bug)
    running = asyncio.create_task(Beat().run())
    await auntil(lambda: events.count("internal_error") > 2)
    running.cancel()
    await asyncio.wait({running})


def _gave_up() -> OperationalError:
    error = OperationalError("deadlock detected")
    error.__cause__ = errors.DeadlockDetected()
    return error


@pytest.mark.parametrize("where", ["read_states", "tick", "note_handled"])
def test_a_lock_that_the_database_gave_up_on_is_no_outage(
    sent: NotingPublisher, events: list[str], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    for name in ("first", "second"):
        schedule_task(add, "* * * * *", name=name, args=[1, 2])
    beat, function, failures = Beat(), getattr(beat_module, where), [_gave_up(), _gave_up()]

    def contended(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return function(*args, **kwargs)

    beat.pass_once(NOON)
    monkeypatch.setattr(beat_module, where, contended)
    assert beat.pass_once(NOON + MINUTE) > 0.05
    assert (failures, beat.problem, beat.is_down) == ([], "", False)
    assert "beat_failed" not in events
    later = ScheduleTick.objects.filter(slot=NOON + MINUTE)
    assert set(later.values_list("schedule_key", flat=True)) == {"first", "second"}

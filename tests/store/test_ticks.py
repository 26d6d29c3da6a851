"""Ticks: each slot of each schedule once, whatever happens at the same time."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib import admin
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from i3tasks import ScheduleError, delete_schedule, registry, schedule_task, task
from i3tasks.engine.beat import Beat
from i3tasks.exceptions import TaskDefinitionError
from i3tasks.models import ScheduleState, ScheduleTick, TaskExecution, TaskExecutionTry, TaskSchedule
from i3tasks.store.keys import argument_key
from i3tasks.store.schedules import known_schedules
from i3tasks.store.ticks import note_handled, read_states, tick
from i3tasks.types import I3TasksSettings, Schedule
from tests.shop.tasks import add
from tests.store.helpers import in_threads, open_transaction
from tests.support.rigs import NotingPublisher

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def every_minute(name: str = "often", **fields: Any) -> TaskSchedule:
    return schedule_task(add, fields.pop("cron", "* * * * *"), name=name, args=[1, 2], **fields)


def slots(name: str = "often") -> list[datetime]:
    ticks = ScheduleTick.objects.filter(schedule_key=name).order_by("slot")
    return list(ticks.values_list("slot", flat=True))


def seen(at: datetime = NOON, **fields: Any) -> None:
    """A schedule that beats have known since `at`, and handled until then."""
    every_minute(**fields)
    Beat().pass_once(at)
    TaskExecution.objects.all().delete()
    ScheduleTick.objects.all().delete()


def test_a_tick_is_written_with_its_execution(sent: NotingPublisher) -> None:
    every_minute(queue_name="heavy")
    Beat().pass_once(NOON + timedelta(seconds=17))

    execution = TaskExecution.objects.get()
    assert (execution.task_path, execution.task_name) == ("tests.shop.tasks", "add")
    assert (execution.task_args, execution.queue_name) == ([1, 2], "heavy")
    written = ScheduleTick.objects.get()
    assert (written.schedule_key, written.slot, written.execution) == ("often", NOON, execution)
    assert sent.try_ids == [TaskExecutionTry.objects.get().pk]


def test_four_beats_at_once_enqueue_each_slot_once(sent: NotingPublisher) -> None:
    for name in ("a", "b", "c"):
        every_minute(name)

    def beat() -> None:
        for minute in range(6):
            Beat().pass_once(NOON + minute * MINUTE)

    in_threads([beat] * 4)
    Beat().pass_once(NOON + 5 * MINUTE)  # for slots that a beat left to one that was at it

    for name in ("a", "b", "c"):
        assert slots(name) == [NOON + minute * MINUTE for minute in range(6)]
    assert TaskExecution.objects.count() == ScheduleTick.objects.exclude(execution=None).count() == 18
    assert len(sent.try_ids) == len(set(sent.try_ids)) == 18


def test_a_state_made_anew_repeats_no_slot() -> None:
    every_minute()
    Beat().pass_once(NOON)
    ScheduleState.objects.all().delete()
    Beat().pass_once(NOON)

    assert slots() == [NOON]
    assert TaskExecution.objects.count() == 1


def test_a_slot_that_another_beat_writes_meanwhile_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    from i3tasks.store import ticks

    every_minute()
    schedule = known_schedules()[0]
    states, now = read_states([schedule], now=NOON)
    enqueue = ticks.enqueue

    def outrun(*args: Any, **kwargs: Any) -> Any:
        ScheduleTick.objects.create(schedule_key="often", slot=NOON)
        return enqueue(*args, **kwargs)

    monkeypatch.setattr(ticks, "enqueue", outrun)
    assert tick(schedule, schedule.call(), states["often"].pk, now) is None
    assert not TaskExecution.objects.exists()


@pytest.mark.postgres
def test_a_locked_schedule_is_left_to_the_next_pass() -> None:
    seen()
    every_minute("other")
    with open_transaction("SELECT * FROM i3tasks_schedulestate FOR UPDATE"):
        Beat().pass_once(NOON + MINUTE)
        assert (slots("often"), slots("other")) == ([], [NOON + MINUTE])
    Beat().pass_once(NOON + 2 * MINUTE)
    assert slots() == [NOON + MINUTE, NOON + 2 * MINUTE]


@pytest.mark.postgres
def test_noting_that_nothing_was_due_waits_for_no_lock() -> None:
    seen(cron="0 0 1 1 *")
    with open_transaction("SELECT * FROM i3tasks_schedulestate FOR UPDATE", "SET LOCAL lock_timeout = '5s'"):
        states = list(ScheduleState.objects.all())
        note_handled(states, NOON + MINUTE)
    assert ScheduleState.objects.get().handled_until == NOON


# -------------------------------------------------------------------------------------------- from when on


def test_first_seen_it_counts_from_the_current_minute() -> None:
    every_minute("now", cron="0 12 * * *")
    every_minute("before", cron="59 11 * * *")
    Beat().pass_once(NOON + timedelta(seconds=59))

    assert slots("now") == [NOON]
    assert slots("before") == []


def test_by_the_databases_clock_it_is_now() -> None:
    every_minute()
    before = timezone.now()
    Beat().pass_once()

    (slot,) = slots()
    assert before - MINUTE - timedelta(seconds=5) <= slot <= timezone.now() + timedelta(seconds=5)
    assert (slot.second, slot.microsecond) == (0, 0)


def test_a_beat_that_is_seventy_seconds_late_runs_what_it_missed() -> None:
    seen()
    Beat().pass_once(NOON + timedelta(seconds=130))

    assert slots() == [NOON + MINUTE, NOON + 2 * MINUTE]


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [("latest", [3]), ("all", [1, 2, 3]), ("none", [])],
)
def test_after_hours_without_a_beat(catch_up: str, expected: list[int]) -> None:
    seen(cron="@hourly", catch_up=catch_up)
    Beat().pass_once(NOON + timedelta(hours=3, minutes=40))
    assert slots() == [NOON + timedelta(hours=hour) for hour in expected]

    Beat().pass_once(NOON + timedelta(hours=4))
    assert slots()[-1] == NOON + timedelta(hours=4)


def test_catching_up_is_bounded(events: list[str]) -> None:
    seen(catch_up="all")
    Beat().pass_once(NOON + timedelta(days=2))

    assert len(slots()) == 1000
    assert slots()[-1] == NOON + timedelta(days=2)
    assert "schedule_slots_dropped" in events


def test_what_was_disabled_is_not_caught_up_with() -> None:
    seen(cron="@hourly", catch_up="all", enabled=False)
    Beat().pass_once(NOON + timedelta(hours=3, minutes=1))
    every_minute(cron="@hourly", catch_up="all")
    Beat().pass_once(NOON + timedelta(hours=4))

    assert slots() == [NOON + timedelta(hours=4)]


def test_another_cron_counts_from_the_change_on() -> None:
    seen(cron="0 3 * * *")
    every_minute(cron="0 11 * * *")
    Beat().pass_once(NOON + MINUTE)

    assert slots() == []


@pytest.mark.parametrize("change", [{"cron": "*/2 * * * *"}, {"time_zone": "Europe/Berlin"}, {"enabled": True}])
@pytest.mark.parametrize("by", ["code", "admin"])
def test_a_change_while_no_beat_ran_leaves_the_slots_before_it(change: dict[str, Any], by: str, rf: Any) -> None:
    began = timezone.now() - timedelta(hours=1)
    seen(began, catch_up="all", enabled="enabled" not in change)
    if by == "code":
        every_minute(catch_up="all", **change)
    else:
        row = TaskSchedule.objects.get()
        for name, value in change.items():
            setattr(row, name, value)
        admin.site.get_model_admin(TaskSchedule).save_model(rf.post("/"), row, form=None, change=True)
    changed = timezone.now()
    Beat().pass_once(changed + timedelta(minutes=4))
    assert slots()
    assert min(slots()) > changed - MINUTE


def test_a_change_of_something_else_loses_no_slot() -> None:
    began = timezone.now() - timedelta(hours=1)
    seen(began, catch_up="all")
    every_minute(catch_up="all", description="the same times")
    Beat().pass_once(began + timedelta(minutes=30))
    assert len(slots()) == 30


@pytest.mark.postgres
def test_a_key_in_an_open_transaction_holds_up_neither_its_schedule_nor_the_others() -> None:
    seen()
    schedule_task(only_once, "* * * * *", name="unique")
    Beat().pass_once(NOON)
    TaskExecution.objects.all().delete()
    with open_transaction(
        "INSERT INTO i3tasks_taskkey (key, token, created_at) VALUES"
        f" ('{argument_key(only_once.spec, [], {}).text}', '{uuid4()}', now())"
    ):
        Beat().pass_once(NOON + MINUTE)
        assert (slots("unique"), slots()) == ([NOON], [NOON + MINUTE])
    Beat().pass_once(NOON + 2 * MINUTE)
    assert slots("unique")[-2:] == [NOON + MINUTE, NOON + 2 * MINUTE]


@task(unique=True)
def only_once() -> None: ...


def test_a_pass_with_an_older_time_changes_nothing() -> None:
    seen()
    Beat().pass_once(NOON - timedelta(hours=1))

    assert slots() == []
    assert ScheduleState.objects.get().handled_until == NOON


def test_the_time_zone_counts() -> None:
    every_minute(cron="0 14 * * *", time_zone="Europe/Berlin")
    Beat().pass_once(NOON)
    assert slots() == [NOON]


@override_settings(TIME_ZONE="Asia/Tokyo")
def test_without_a_time_zone_it_is_the_projects() -> None:
    every_minute(cron="0 21 * * *")
    Beat().pass_once(NOON)
    assert slots() == [NOON]


def test_a_deleted_schedule_forgets_its_state_and_leaves_its_executions() -> None:
    seen()
    Beat().pass_once(NOON + MINUTE)
    assert delete_schedule("often")
    assert not delete_schedule("often")

    assert not ScheduleState.objects.exists()
    assert TaskExecution.objects.count() == 1
    Beat().pass_once(NOON + 2 * MINUTE)
    assert TaskExecution.objects.count() == 1


def test_executions_may_be_pruned_and_their_slots_stay_done() -> None:
    every_minute()
    Beat().pass_once(NOON)
    TaskExecution.objects.all().delete()
    ScheduleState.objects.all().delete()
    Beat().pass_once(NOON)

    assert not TaskExecution.objects.exists()


# ------------------------------------------------------------------------------------------------ beside the task


def tidy_up() -> None: ...


PATH = f"{tidy_up.__module__}.tidy_up"


@pytest.fixture
def tidied_hourly(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = registry.checked(tidy_up, registry.TaskOptions(cron="@hourly", priority=3))
    monkeypatch.setitem(registry.lookup._tasks, (spec.module_name, spec.func_name), spec)


@pytest.mark.usefixtures("tidied_hourly")
def test_a_task_names_its_own_times() -> None:
    Beat().pass_once(NOON)
    Beat().pass_once(NOON + MINUTE)
    assert slots(PATH) == [NOON]
    execution = TaskExecution.objects.get()
    assert (execution.task_name, execution.task_args, execution.priority) == ("tidy_up", [], 3)


@pytest.mark.usefixtures("tidied_hourly")
def test_settings_say_other_times_and_rows_can_not() -> None:
    schedule_task(add, "* * * * *", name="other", args=[1, 2])
    TaskSchedule.objects.update(name=PATH)
    other = Schedule(tidy_up.__module__, "tidy_up", "30 * * * *", name=PATH)
    assert [(item.cron, bool(item.problem)) for item in known_schedules()] == [("@hourly", False), ("* * * * *", True)]
    with override_settings(I3TASKS=I3TasksSettings(schedules=(other,))):
        assert [item.cron for item in known_schedules()] == ["30 * * * *", "* * * * *"]


@pytest.mark.parametrize(("function", "cron", "said"), [(tidy_up, "61 * * * *", "cron '61"), (tidy_up, 5, "cron 5")])
def test_what_can_not_be_scheduled_is_said_at_once(function: Any, cron: Any, said: str) -> None:
    with pytest.raises(TaskDefinitionError, match=said):
        registry.checked(function, registry.TaskOptions(cron=cron))


def test_a_task_that_needs_arguments_can_not_name_its_times() -> None:
    with pytest.raises(TaskDefinitionError, match="calls it without any"):
        registry.checked(add.spec.function, registry.TaskOptions(cron="@daily"))


# ------------------------------------------------------------------------------------------------ in settings


def test_schedules_of_settings_run_too() -> None:
    named = Schedule("tests.shop.tasks", "add", "* * * * *", [1], {"right": 2}, name="named")
    unnamed = Schedule("tests.shop.tasks", "add", "0 12 * * *", [3, 4])
    disabled = Schedule("tests.shop.tasks", "add", "* * * * *", [5, 6], enabled=False)
    with override_settings(I3TASKS=I3TasksSettings(schedules=(named, unnamed, disabled))):
        Beat().pass_once(NOON)
        Beat().pass_once(NOON + MINUTE)

    arguments = TaskExecution.objects.order_by("pk").values_list("task_args", "task_kwargs")
    assert list(arguments) == [([1], {"right": 2}), ([3, 4], {}), ([1], {"right": 2})]
    assert slots(unnamed.key) == [NOON]


def test_a_changed_schedule_of_settings_counts_as_a_new_one() -> None:
    for cron in ("0 3 * * *", "0 11 * * *"):
        schedule = Schedule("tests.shop.tasks", "add", cron, [1, 2])
        with override_settings(I3TASKS=I3TasksSettings(schedules=(schedule,))):
            Beat().pass_once(NOON)
    assert ScheduleState.objects.count() == 2
    assert not TaskExecution.objects.exists()


def test_the_name_of_a_schedule_in_settings_is_taken() -> None:
    every_minute("mine")
    schedule = Schedule("tests.shop.tasks", "add", "* * * * *", [3, 4], name="mine")
    with override_settings(I3TASKS=I3TasksSettings(schedules=(schedule,))):
        with pytest.raises(ScheduleError, match="has a schedule 'mine' already"):
            every_minute("mine")
        Beat().pass_once(NOON)
        assert [list(execution.task_args) for execution in TaskExecution.objects.all()] == [[3, 4]]
        assert ScheduleState.objects.filter(last_error__contains="which counts").count() == 1


# ----------------------------------------------------------------------------------------------- made by code


def test_replacing_keeps_one_row() -> None:
    first = every_minute(description="one")
    second = every_minute(cron="@daily", time_zone="Europe/Berlin")
    assert first.pk == second.pk
    row = TaskSchedule.objects.get()
    assert (row.cron, row.time_zone, row.description) == ("@daily", "Europe/Berlin", "")


def test_it_is_part_of_the_callers_transaction() -> None:
    with transaction.atomic():
        every_minute()
        transaction.set_rollback(True)
    assert not TaskSchedule.objects.exists()


def test_the_default_name_is_the_tasks() -> None:
    assert schedule_task(add, "@daily", args=[1, 2]).name == "tests.shop.tasks.add"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cron": "61 * * * *"}, "cron: .*minute"),
        ({"time_zone": "Mars/Phobos"}, "time_zone: There is no time zone"),
        ({"queue_name": "nowhere"}, "no queue 'nowhere'"),
        ({"catch_up": "some"}, "catch_up: It must be one of"),
        ({"name": ""}, "name: It must be text"),
        ({"kwargs": {"middle": 3}}, "don't fit the task tests.shop.tasks.add"),
    ],
)
def test_what_could_not_run_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ScheduleError, match=said):
        every_minute(**fields)
    assert not TaskSchedule.objects.exists()


def test_of_using_only_the_queue_is_kept() -> None:
    assert schedule_task(add.using(queue_name="heavy"), "@daily", args=[1, 2]).queue_name == "heavy"
    with pytest.raises(ScheduleError, match="keeps the queue_name only"):
        schedule_task(add.using(max_retries=0), "@daily", args=[1, 2])


def test_a_schedule_that_is_deleted_during_a_pass_is_left_alone() -> None:
    every_minute()
    schedules = known_schedules()
    read_states(schedules)
    TaskSchedule.objects.all().delete()
    states, now = read_states([])
    assert (states, now) == ({}, None)


def test_arguments_come_back_as_they_were_given() -> None:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    schedule_task(add, "@daily", name="typed", args=[when, 2])
    assert TaskSchedule.objects.get().args == [{"__i3tasks__": "datetime", "value": when.isoformat()}, 2]

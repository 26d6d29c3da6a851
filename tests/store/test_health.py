"""What health counts and complains of, and in which word a status sums up the tries."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import override_settings
from django.utils import timezone

from i3tasks.models import ScheduleState, TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskSchedule
from i3tasks.store import health as health_of_tasks
from i3tasks.store import status as status_of_execution
from i3tasks.types import DatabaseQueue, I3TasksSettings, PullQueue, Schedule
from tests.store.helpers import plans
from tests.support.history import a_try, ago, execution

pytestmark = pytest.mark.django_db


def health(now: datetime | None = None) -> dict[str, Any]:
    return async_to_sync(health_of_tasks.health)(now or timezone.now())


def status(row: TaskExecution) -> Any:
    return async_to_sync(status_of_execution.status)(id=row.pk)


def test_an_empty_system_is_well() -> None:
    report = health()

    now = datetime.fromisoformat(report.pop("now"))
    assert now.utcoffset() == timedelta(0)
    assert datetime.fromisoformat(report.pop("counted_since")) == now - timedelta(hours=1)
    assert report == {
        "status": "ok",
        "window_minutes": 60,
        "thresholds": {"stuck_minutes": 15, "failed_threshold": 5, "pending_age_seconds_threshold": 300},
        "totals": {"pending": 0, "running": 0, "success": 0, "failed": 0},
        "stuck_running": 0,
        "oldest_pending_age_seconds": 0,
        "problems": [],
        "by_task": [],
    }


def test_it_counts_the_tries_of_the_window_by_state_and_task() -> None:
    for state, count in {"pending": 1, "running": 2, "success": 3, "failed": 2, "old failed": 2}.items():
        for _ in range(count):
            a_try(state, ago(minutes=1))
    a_try("success", ago(minutes=1), name="shop.tasks.add")
    a_try("success", ago(minutes=61))

    report = health()

    assert report["totals"] == {"pending": 1, "running": 2, "success": 4, "failed": 4}
    assert report["by_task"] == [
        {
            "task_path": "app.tasks.send_email",
            "task_name": "send_email",
            "success": 3,
            "failed": 4,
            "running": 2,
            "pending": 1,
        },
        {"task_path": "shop.tasks.add", "task_name": "add", "success": 1, "failed": 0, "running": 0, "pending": 0},
    ]


def test_of_a_long_window_the_newest_tries_are_counted_and_all_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i3tasks.store.health.MOST_COUNTED", 4)
    for minutes in (1, 2, 3, 4, 5, 6, 7):
        a_try("success", ago(minutes=minutes))
    a_try("failed", ago(minutes=1.5))
    for minutes in (10, 20, 59, 70):
        a_try("failed", ago(minutes=minutes), name="shop.tasks.add")
    a_try("failed", ago(minutes=30), error_class="i3tasks.exceptions.TaskCancelled")

    report = health()

    assert report["totals"] == {"pending": 0, "running": 0, "success": 4, "failed": 4}
    assert [facts["failed"] for facts in report["by_task"]] == [3, 1]
    age = datetime.fromisoformat(report["now"]) - datetime.fromisoformat(report["counted_since"])
    assert age.total_seconds() == pytest.approx(240, abs=5)


def test_by_task_shows_fifty_most_failures_first() -> None:
    for number in range(60):
        of = execution(name=f"app.tasks.t{number:02}")
        for try_number in range(1, number // 20 + 2):
            a_try("failed" if number == 7 else "success", of=of, try_number=try_number)

    names = [facts["task_name"] for facts in health()["by_task"]]

    assert names == [
        "t07",
        *(f"t{number}" for number in range(40, 60)),
        *(f"t{number}" for number in range(20, 40)),
    ] + [f"t{number:02}" for number in range(10) if number != 7]
    assert sum(health()["totals"].values()) == 20 * (1 + 2 + 3), "totals hold all tasks"


@pytest.mark.parametrize(("failed", "status", "problems"), [(5, "ok", []), (6, "warning", [
    "6 failed tries in last 60 minutes (>5)"
])])  # fmt: skip
def test_more_failures_than_the_threshold_are_a_warning(failed: int, status: str, problems: list[str]) -> None:
    of = execution()
    for number in range(failed):
        a_try("failed", ago(minutes=5), of=of, try_number=number + 1)

    assert (health()["status"], health()["problems"]) == (status, problems)


def test_a_try_that_runs_for_too_long_is_critical() -> None:
    a_try("running", ago(minutes=14), lease_until=ago())
    assert (health()["status"], health()["stuck_running"]) == ("ok", 0)

    a_try("running", ago(minutes=16), lease_until=ago())
    a_try("running", ago(days=3))

    report = health()
    assert (report["status"], report["stuck_running"]) == ("critical", 2), "the window is no limit here"
    assert report["problems"] == ["2 tries running for more than 15 minutes"]


def test_a_try_that_waits_for_too_long_is_critical() -> None:
    a_try("pending", ago(seconds=299.5))
    assert (health()["status"], health()["oldest_pending_age_seconds"]) == ("ok", 299)

    a_try("pending", ago(hours=3, seconds=0.5))

    report = health()
    assert (report["status"], report["oldest_pending_age_seconds"]) == ("critical", 10800)
    assert report["problems"] == ["oldest pending try is 10800s old (>300s)"]
    assert report["totals"]["pending"] == 1, "the other one lies outside the window"


@pytest.mark.parametrize(("seconds", "status"), [(300, "ok"), (300.9, "ok"), (301, "critical")])
def test_a_threshold_itself_is_still_well(seconds: float, status: str) -> None:
    at = ago()
    a_try("pending", at)

    assert health(at + timedelta(seconds=seconds))["status"] == status


def test_a_deferred_try_is_pending_only_from_its_time_on() -> None:
    a_try("pending", ago(minutes=30), run_after=ago(hours=-1))
    report = health()
    assert (report["status"], report["totals"]["pending"], report["by_task"]) == ("ok", 0, [])
    assert report["oldest_pending_age_seconds"] == 0

    a_try("pending", ago(minutes=30), run_after=ago(seconds=100.5))
    report = health()
    assert (report["status"], report["totals"]["pending"]) == ("ok", 1)
    assert report["oldest_pending_age_seconds"] == 100


def test_failed_tries_of_django_i3tasks_do_not_look_stuck() -> None:
    a_try("old failed", ago(days=400), result="no")
    a_try("old failed", ago(minutes=50), result="no")

    report = health()

    assert (report["status"], report["stuck_running"]) == ("ok", 0)
    assert report["totals"] == {"pending": 0, "running": 0, "success": 0, "failed": 1}


@pytest.mark.parametrize("state", ["pending", "running"])
def test_what_django_i3tasks_lost_is_no_alarm_for_ever(state: str) -> None:
    a_try(state, ago(days=32), claim_token=None)
    assert health()["status"] == "ok"

    a_try(state, ago(days=30), claim_token=None)
    assert health()["status"] == "critical", "its message may still come"


@pytest.mark.parametrize(("state", "column"), [("pending", "dispatch_at"), ("running", "lease_until")])
def test_ours_is_an_alarm_however_old(state: str, column: str) -> None:
    a_try(state, ago(days=320), **{column: ago()})

    assert health()["status"] == "critical"


def test_a_missing_dispatcher_is_a_problem() -> None:
    a_try("pending", ago(minutes=2), dispatch_at=ago(seconds=70))
    assert health()["status"] == "ok"

    a_try("pending", ago(minutes=4), dispatch_at=ago(seconds=200.5))

    report = health()
    assert report["status"] == "warning"
    assert report["problems"] == [
        "a try that was due 200s ago has not been published (>75s): "
        "is a worker, or POST tasks-beat each minute, at work, and Pub/Sub there?"
    ]


def test_a_backlog_in_pubsub_is_no_missing_dispatcher() -> None:
    a_try("pending", ago(minutes=4), dispatch_at=ago(seconds=200), publish_count=1)
    a_try("running", ago(seconds=20), lease_until=ago(seconds=-20))

    assert health()["status"] == "ok"


def test_published_tries_that_wait_without_a_worker_are_a_problem() -> None:
    a_try("pending", ago(seconds=150), dispatch_at=ago(minutes=-60), publish_count=1)
    a_try("success", ago(seconds=20), result=1)
    assert health()["status"] == "ok"

    TaskExecutionResult.objects.update(created_at=ago(seconds=121))
    report = health()
    assert report["status"] == "warning"
    assert "rows wait and no worker lives" in report["problems"][0]

    a_try("running", ago(seconds=20), lease_until=ago(seconds=-20))
    assert health()["status"] == "ok"


@override_settings(
    I3TASKS=I3TasksSettings(default_queue=DatabaseQueue("near"), other_queues=(PullQueue("far", "worker"),))
)
@pytest.mark.parametrize(("queue", "is_said"), [(None, True), ("near", True), ("far", False)])
def test_tries_of_a_queue_without_pubsub_wait_for_a_worker_though_they_are_not_published(
    queue: str | None, is_said: bool
) -> None:
    row = a_try("pending", ago(seconds=125), dispatch_at=ago(seconds=65))
    TaskExecution.objects.filter(pk=row.task_execution_id).update(queue_name=queue)
    assert any("no worker lives" in problem for problem in health()["problems"]) == is_said

    TaskExecutionTry.objects.filter(pk=row.pk).update(run_after=ago(seconds=-60), dispatch_at=ago(seconds=-60))
    assert health()["status"] == "ok"


def test_an_expired_lease_is_a_problem() -> None:
    a_try("running", ago(minutes=2), lease_until=ago(seconds=110))
    assert health()["status"] == "ok"

    a_try("running", ago(minutes=4), lease_until=ago(seconds=125))
    report = health()
    assert report["status"] == "warning"
    assert "1 leases of lost workers have expired" in report["problems"][0]


def test_a_publish_that_is_overdue_is_a_problem_though_it_was_published_before() -> None:
    a_try("running", ago(seconds=20), lease_until=ago(seconds=-20))
    a_try("pending", ago(minutes=4), dispatch_at=ago(seconds=301), publish_count=1)

    assert "due to be published again for 301s" in health()["problems"][0]


def test_a_schedule_whose_slots_are_missed_is_a_problem() -> None:
    row = TaskSchedule.objects.create(
        name="often", task_path="a.b", task_name="c", cron="* * * * *", args=[], kwargs={}
    )
    assert health()["status"] == "ok", "it was made just now"
    TaskSchedule.objects.update(created_at=ago(minutes=5))
    assert "schedule 'often' has missed its slot" in health()["problems"][0]

    state = ScheduleState.objects.create(schedule_key="often", first_seen=ago(minutes=9), handled_until=ago(seconds=90))
    assert health()["status"] == "ok"
    ScheduleState.objects.update(handled_until=ago(minutes=4))
    assert "schedule 'often' has missed its slot" in health()["problems"][0]

    row.enabled = False
    row.save()
    assert health()["status"] == "ok"
    row.enabled, row.cron = True, f"0 0 {(ago(days=-9)).day} * *"
    row.save()
    assert health()["status"] == "ok", "no slot of it has come since"
    ScheduleState.objects.filter(pk=state.pk).update(first_seen=datetime(1, 1, 1, tzinfo=UTC), handled_until=None)
    assert health()["status"] == "ok", "what can't be counted is the beat's to say"


def test_a_schedule_of_the_settings_that_no_beat_has_seen_is_a_problem() -> None:
    with override_settings(I3TASKS=I3TasksSettings(schedules=(Schedule("a.b", "c", "@daily", name="daily"),))):
        assert "no beat has seen the schedule 'daily' yet" in health()["problems"][0]
        ScheduleState.objects.create(schedule_key="other", first_seen=ago(), handled_until=ago(seconds=50))
        assert health()["status"] == "ok", "one is at work, and will see it"


@pytest.mark.parametrize("is_marked", [True, False])
def test_cancelled_is_not_failed(is_marked: bool) -> None:
    at = ago(minutes=1)
    for _ in range(9):
        row = execution(at, outcome="cancelled", finished_at=at)
        error = {"error_class": "i3tasks.exceptions.TaskCancelled"} if is_marked else {}
        a_try("failed", at, of=row, result="cancelled", **error)
    earlier = execution(at, outcome="cancelled", finished_at=at)
    a_try("failed", ago(minutes=2), of=earlier, result="no paper", error_class="ValueError")
    a_try("failed", at, of=earlier, try_number=2, error_class="i3tasks.exceptions.TaskCancelled")

    report = health()
    assert (report["status"], report["totals"]["failed"]) == ("ok", 1)
    assert status(row)["status"] == "cancelled"


def rename(table: str, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {name}")


@pytest.mark.django_db(transaction=True)
def test_without_tables_it_is_critical_and_says_to_migrate() -> None:
    rename("i3tasks_taskexecutiontry", "elsewhere")
    latest = max(name for app, name in MigrationRecorder(connection).applied_migrations() if app == "i3tasks")
    MigrationRecorder(connection).record_unapplied("i3tasks", latest)
    try:
        report = health()
    finally:
        MigrationRecorder(connection).record_applied("i3tasks", latest)
        rename("elsewhere", "i3tasks_taskexecutiontry")
    assert report["status"] == "critical"
    assert report["problems"] == [
        "the tables of i3tasks are missing, or older than this version: run manage.py migrate"
    ]
    assert report["totals"] == {"pending": 0, "running": 0, "success": 0, "failed": 0}


@pytest.mark.django_db(transaction=True)
def test_a_table_that_is_missing_though_nothing_waits_to_be_migrated_is_named() -> None:
    rename("i3tasks_queuepause", "elsewhere")
    try:
        report = health()
        with pytest.raises(CommandError, match="shows no i3tasks_queuepause, though their migrations are recorded"):
            call_command("i3tasks_queues")
    finally:
        rename("elsewhere", "i3tasks_queuepause")
    assert report["status"] == "critical"
    [problem] = report["problems"]
    assert problem.startswith("tables are missing, though their migrations are recorded as applied: i3tasks_queuepause")


def test_a_broken_schedule_is_a_problem() -> None:
    for key, error, at in (
        ("well", "", None),
        ("nightly", "args: no {'card': 4111}", ago(hours=2)),
        ("taken out of the settings", "no", ago(hours=4)),
    ):
        ScheduleState.objects.create(schedule_key=key, first_seen=ago(days=3), last_error=error, last_error_at=at)

    report = health()

    assert (report["status"], report["problems"]) == (
        "warning",
        ["schedule 'nightly' can't be run: see its last error"],
    )


@override_settings(
    I3TASKS=I3TasksSettings(
        health_window_minutes=15,
        health_stuck_minutes=5,
        health_failed_threshold=0,
        health_pending_age_seconds_threshold=60,
    )
)
def test_thresholds_are_settings() -> None:
    a_try("failed", ago(minutes=16))
    assert health()["problems"] == []
    a_try("failed", ago(minutes=14))
    a_try("running", ago(minutes=6))
    a_try("pending", ago(seconds=61.5))

    report = health()

    assert report["thresholds"] == {"stuck_minutes": 5, "failed_threshold": 0, "pending_age_seconds_threshold": 60}
    assert report["problems"] == [
        "1 tries running for more than 5 minutes",
        "oldest pending try is 61s old (>60s)",
        "1 failed tries in last 15 minutes (>0)",
    ]


@pytest.mark.postgres
def test_the_indexes_serve() -> None:
    """None of health's statements reads all the rows there are."""
    of_tries = [plan for plan in plans(lambda: (a_try("success"), health())) if "i3tasks_taskexecutiontry" in plan]
    assert len(of_tries) >= 5
    assert not [plan for plan in of_tries if "Seq Scan on i3tasks_taskexecution" in plan]
    unpublished = [plan for plan in of_tries if "publish_count = 0" in plan]
    assert unpublished
    assert all("Index Cond: (dispatch_at <=" in plan for plan in unpublished), "none of a backlog that was published"


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([], "unknown"),
        (["pending"], "pending"),
        (["running"], "running"),
        (["success"], "success"),
        (["failed"], "failed"),
        (["old failed"], "failed"),
        (["failed", "pending"], "pending"),
        (["old failed", "running"], "running"),
        (["failed", "success"], "success"),
        (["success", "pending"], "success"),
    ],
)
def test_all_tries_in_one_word(states: list[str], expected: str) -> None:
    row = execution()
    for number, state in enumerate(states, 1):
        a_try(state, of=row, try_number=number)

    report = status(row)

    assert report["status"] == expected
    assert [item["try_number"] for item in report["tries"]] == [*range(1, len(states) + 1)]


@pytest.mark.parametrize(
    ("stored", "by_us", "shown"),
    [
        ('{"ok": true}', False, {"ok": True}),
        ('"no"', False, "no"),
        ("no", False, "no"),
        ({"ok": True}, False, {"ok": True}),
        ('{"ok": true}', True, '{"ok": true}'),
        ("no", True, "no"),
        ({"__i3tasks__": "date", "value": "2026-07-09"}, True, datetime(2026, 7, 9, tzinfo=UTC).date().isoformat()),
    ],
)
def test_results_are_shown_as_what_they_were(stored: Any, by_us: bool, shown: Any) -> None:
    task_try = a_try("success" if by_us else "old failed", result=stored)

    assert str(status(task_try.task_execution)["tries"][0]["result"]) == str(shown)


def test_at_most_a_thousand_tries_are_shown_the_latest() -> None:
    row = execution()
    TaskExecutionTry.objects.bulk_create(
        TaskExecutionTry(task_execution=row, try_number=number) for number in range(1, 1003)
    )

    numbers = [item["try_number"] for item in status(row)["tries"]]

    assert numbers == [*range(3, 1003)]

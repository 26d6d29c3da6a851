"""The workers' rows, what health makes of them, and the list of them."""

import io
import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from i3tasks.models import ScheduleState, TaskExecution, TaskSchedule, Worker
from i3tasks.store import health as health_of_tasks
from i3tasks.store.workers import WorkerFacts, listed, living_workers, note_workers
from tests.support.history import a_try, ago

pytestmark = pytest.mark.django_db

FACTS = WorkerFacts(
    id="w1",
    role="worker",
    state="running",
    host="pod-7",
    pid=12,
    version="0.1.0",
    queues=("default", "mail"),
    concurrency=100,
    running=3,
    is_new=True,
    passed=frozenset(),
)


@dataclass
class Says:
    told: WorkerFacts

    def facts(self) -> WorkerFacts:
        return self.told


def note(at: datetime | None = None, **changes: Any) -> None:
    note_workers([Says(replace(FACTS, **changes))], now=at or ago())


def problems(now: datetime | None = None) -> list[str]:
    found: list[str] = async_to_sync(health_of_tasks.health)(now or timezone.now())["problems"]
    return found


def test_a_first_heartbeat_writes_the_row_and_later_ones_what_changes() -> None:
    began, later = ago(minutes=5), ago(minutes=4)
    note(began, passed=frozenset({"dispatched_at"}))
    note(later, is_new=False, state="draining", running=1, host="ignored", passed=frozenset({"beat_at"}))

    row = Worker.objects.get()
    assert (row.pk, row.role, row.state, row.host, row.pid) == ("w1", "worker", "draining", "pod-7", 12)
    assert (row.queues, row.concurrency, row.running) == (["default", "mail"], 100, 1)
    assert (row.started_at, row.heartbeat_at, row.dispatched_at, row.beat_at) == (began, later, began, later)


def test_a_heartbeat_is_one_statement_by_the_databases_clock() -> None:
    note()
    before = ago()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        note_workers([Says(replace(FACTS, is_new=False))])

    assert len(queries) == 1
    assert Worker.objects.get().heartbeat_at >= before - timedelta(seconds=1)


def test_a_row_that_was_deleted_is_written_anew() -> None:
    note(is_new=False)

    assert Worker.objects.get().host == "pod-7"


def test_a_restart_under_the_same_id_is_a_new_worker() -> None:
    note(ago(hours=1), state="stopped")
    note(restarted := ago(), pid=99, version="0.2.0")

    row = Worker.objects.get()
    assert (row.pid, row.version, row.state, row.started_at) == (99, "0.2.0", "running", restarted)


def test_newcomers_delete_those_that_are_long_gone() -> None:
    note(ago(hours=25), id="long gone")
    note(ago(hours=23), id="gone")
    note(id="w2")

    assert set(Worker.objects.values_list("pk", flat=True)) == {"gone", "w2"}


def test_who_stopped_or_says_nothing_any_more_is_not_alive() -> None:
    now = ago()
    note(now, id="alive")
    note(now, id="drains", state="draining")
    note(now, id="stopped", state="stopped")
    note(now - timedelta(seconds=121), id="killed")

    assert [row.pk for row in living_workers(now)] == ["alive", "drains"]
    states = {facts["id"]: facts["state"] for facts in listed(list(Worker.objects.all()), now)}
    assert states == {"alive": "running", "drains": "draining", "stopped": "stopped", "killed": "gone"}


def a_waiting_try(queue: str | None = None) -> None:
    row = a_try("pending", ago(seconds=150), dispatch_at=ago(minutes=-60), publish_count=1)
    TaskExecution.objects.filter(pk=row.task_execution_id).update(queue_name=queue)


def test_rows_that_wait_without_a_living_worker_of_their_queue_are_a_problem() -> None:
    a_waiting_try()
    a_waiting_try("slow")
    note(queues=["default", "mail"])

    [problem] = problems()
    assert problem.startswith("rows wait and no worker lives: the oldest of queue 'slow' has waited for 150s")

    note(id="w2", queues=["slow"])
    assert problems() == []
    note(id="w2", queues=["slow"], state="draining")
    assert len(problems()) == 1, "it begins nothing new"
    Worker.objects.update(heartbeat_at=ago(seconds=130))
    assert len(problems()) == 2


def test_what_a_living_worker_ended_before_it_stopped_is_no_sign_of_life() -> None:
    note(state="stopped")
    a_try("success", ago(seconds=5), worker_id="w1", result=1)
    a_try("success", ago(seconds=5), worker_id="inline", result=1)
    a_waiting_try()

    assert "no worker lives" in problems()[0]


@pytest.mark.parametrize("state", ["running", "success"])
def test_an_older_worker_without_a_row_is_no_problem(state: str) -> None:
    note(ago(minutes=9), passed=frozenset({"dispatched_at", "beat_at"}), state="stopped")
    a_waiting_try()
    assert len(problems()) == 2

    lease = {"lease_until": ago(seconds=-20)} if state == "running" else {}
    a_try(state, ago(seconds=20), worker_id="older:1:x", result=1 if state == "success" else None, **lease)
    assert problems() == []


def test_a_dispatcher_that_is_missing_for_two_minutes_is_a_problem() -> None:
    note(at := ago(minutes=9), passed=frozenset({"dispatched_at"}))
    assert problems(at + timedelta(seconds=120)) == []
    assert problems(at + timedelta(seconds=121)) == [
        "no dispatcher for 121s: is a worker, or POST tasks-beat each minute, at work?"
    ]

    note(id="elsewhere", role="web", passed=frozenset({"dispatched_at"}))
    assert problems() == []


def test_a_beat_that_is_missing_is_a_problem_while_schedules_are_due() -> None:
    note(ago(seconds=200.5), passed=frozenset({"beat_at"}))
    assert problems() == [], "there are no schedules"

    TaskSchedule.objects.create(name="often", task_path="a.b", task_name="c", cron="* * * * *")
    ScheduleState.objects.create(schedule_key="often", first_seen=ago(minutes=9), handled_until=ago(minutes=4))
    found = problems()
    assert found[0].startswith("no beat for 200s while schedules are due")
    assert "schedule 'often' has missed its slot" in found[1]

    note(id="w2", passed=frozenset({"beat_at"}))
    assert len(problems()) == 1, "one is at work: the schedule itself has a fault"


def shown(*options: str) -> str:
    out = io.StringIO()
    call_command("i3tasks_workers", *options, stdout=out)
    return out.getvalue()


def test_the_command_lists_the_living_or_all() -> None:
    assert "No worker lives" in shown()
    assert json.loads(shown("--json")) == []
    note(ago(seconds=3), passed=frozenset({"dispatched_at"}))
    note(ago(hours=3), id="killed")

    [head, line] = shown().splitlines()
    assert head.split() == [
        "id",
        "role",
        "state",
        "running",
        "queues",
        "version",
        "started",
        "heartbeat",
        "dispatched",
        "beat",
    ]
    assert line.split()[:6] == ["w1", "worker", "running", "3/100", "default,mail", "0.1.0"]
    assert len(shown("--all").splitlines()) == 3

    facts = {row["id"]: row for row in json.loads(shown("--json", "--all"))}
    assert facts["killed"]["state"] == "gone"
    assert facts["w1"]["queues"] == ["default", "mail"]
    assert datetime.fromisoformat(facts["w1"]["dispatched_at"])
    assert facts["w1"]["beat_at"] is None


def test_the_command_names_releases_where_there_are_any() -> None:
    note(release="2.0-rc1")
    [head, line] = shown().splitlines()
    assert (head.split()[6], line.split()[6]) == ("release", "2.0-rc1")
    assert json.loads(shown("--json"))[0]["release"] == "2.0-rc1"


def test_a_worker_without_a_broker_is_a_warning_in_every_process() -> None:
    """Each reason once, and no longer than the worker lives and says so."""
    note(trouble="Pub/Sub can't be reached.")
    note(id="w2", trouble="Pub/Sub can't be reached.")
    note(id="w3")
    report = async_to_sync(health_of_tasks.health)(timezone.now(), broker_trouble="Pub/Sub can't be reached.")
    assert (report["status"], report["problems"]) == ("warning", ["broker unavailable: Pub/Sub can't be reached."])
    assert problems() == report["problems"]
    note(is_new=False)
    note(id="w2", is_new=False, state="stopped", trouble="Pub/Sub can't be reached.")
    assert problems() == []

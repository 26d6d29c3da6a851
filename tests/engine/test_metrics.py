"""The metrics of real runs, read by Prometheus's own parser; and the dashboard's and the alerts' queries over them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

pytest.importorskip("prometheus_client", exc_type=ImportError)

from i3tasks import schedule_task
from i3tasks.contrib.prometheus import counters, gauges, rendering
from i3tasks.contrib.prometheus.serving import serve
from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.engine.beat import Beat
from i3tasks.engine.gateway import writer
from i3tasks.engine.worker_row import Presence
from i3tasks.models import ScheduleState, TaskExecution, TaskExecutionTry, Worker, WorkerRole
from i3tasks.store.expiry import expire_leases
from i3tasks.store.figures import figures
from i3tasks.store.pauses import pause
from i3tasks.telemetry import EVENTS
from tests.engine.test_events import enqueued, execute
from tests.shop.tasks import aadd, add, crunch, fail
from tests.support.databases import child_environment
from tests.support.promql import Scrapes, Unknown, Vector, scraped

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "examples" / "monitoring"
ADD, FAIL = "tests.shop.tasks.add", "tests.shop.tasks.fail"


@pytest.fixture(autouse=True)
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Events are counted, and the rows are read at each scrape."""
    monkeypatch.setattr(gauges, "CACHED_SECONDS", 0)
    counters.count_events()
    yield
    counters.stop_counting()


def scrape() -> dict[str, Vector]:
    return scraped(rendering.rendered()[0].decode())


def since(before: dict[str, Vector], name: str) -> dict[tuple[str, ...], float]:
    """By how much each counter has grown, by the values of its labels in their order by name."""
    old = before.get(name, {})
    grown = {key: value - old.get(key, 0) for key, value in scrape().get(name, {}).items()}
    return {tuple(text for _, text in sorted(key)): value for key, value in grown.items() if value}


async def test_what_happens_to_calls_is_counted() -> None:
    before = await sync_to_async(scrape)()
    await execute(await enqueued(aadd, 1, 2))
    await execute(await enqueued(crunch, [1]))
    doomed = await enqueued(fail, "no")
    await execute(doomed)
    await sync_to_async(run_the_latest)()
    await (await add.using(run_after=timedelta(hours=1)).adelay(1, 2)).acancel()

    assert await grown(before, "i3tasks_executions_enqueued_total") == {
        ("default", "tests.shop.tasks.aadd"): 1,
        ("heavy", "tests.shop.tasks.crunch"): 1,
        ("default", FAIL): 1,
        ("default", ADD): 1,
    }
    assert await grown(before, "i3tasks_tries_started_total") == {
        ("default", "tests.shop.tasks.aadd"): 1,
        ("heavy", "tests.shop.tasks.crunch"): 1,
        ("default", FAIL): 2,
    }
    assert await grown(before, "i3tasks_executions_total") == {
        ("success", "default", "tests.shop.tasks.aadd"): 1,
        ("success", "heavy", "tests.shop.tasks.crunch"): 1,
        ("failed", "default", FAIL): 1,
        ("cancelled", "default", ADD): 1,
    }
    assert await grown(before, "i3tasks_tries_retried_total") == {("default", FAIL): 1}
    assert await grown(before, "i3tasks_try_duration_seconds_count") == {
        ("default", "tests.shop.tasks.aadd"): 1,
        ("heavy", "tests.shop.tasks.crunch"): 1,
        ("default", FAIL): 2,
    }
    assert await grown(before, "i3tasks_try_wait_seconds_count") == {("default",): 3, ("heavy",): 1}


def run_the_latest() -> None:
    """Execute the newest try, though its time may not have come."""
    latest = TaskExecutionTry.objects.select_related("task_execution").latest("pk")
    TaskExecutionTry.objects.filter(pk=latest.pk).update(run_after=None)
    async_to_sync(execute)(latest)


async def grown(before: dict[str, Vector], name: str) -> dict[tuple[str, ...], float]:
    return await sync_to_async(since)(before, name)


def test_sync_run_counts_too_and_a_delay_is_no_wait() -> None:
    before = scrape()
    add.sync_run(1, 2)
    task_try = add.delay(1, 2).task_execution_try
    now = timezone.now()
    TaskExecutionTry.objects.filter(pk=task_try.pk).update(asked_at=now - timedelta(days=9), run_after=now)
    async_to_sync(execute)(task_try)

    assert since(before, "i3tasks_executions_total") == {("success", "default", ADD): 2}
    assert since(before, "i3tasks_try_wait_seconds_count") == {("default",): 2}
    assert since(before, "i3tasks_try_wait_seconds_sum")["default",] < 3600


def test_lost_tries_late_slots_and_refused_requests_are_counted(settings: Any) -> None:
    before = scrape()
    task_try = add.delay(1, 2).task_execution_try
    lease = {"lease_until": timezone.now() - timedelta(minutes=1), "started_at": timezone.now(), "dispatch_at": None}
    TaskExecutionTry.objects.filter(pk=task_try.pk).update(**lease)
    expire_leases(10, clock=SYSTEM_CLOCK)
    schedule_task(add, "* * * * *", name="often", args=[1, 2])
    noon = datetime(2026, 1, 5, 12, tzinfo=UTC)
    ScheduleState.objects.create(schedule_key="often", first_seen=noon - timedelta(minutes=1))
    Beat().pass_once(noon + timedelta(seconds=20))
    settings.I3TASKS = replace(settings.I3TASKS, beat_token="a secret of the test", metrics_token=None)
    assert Client().post("/i3/tasks-beat/").status_code == 401

    assert since(before, "i3tasks_leases_expired_total") == {(): 1}
    assert since(before, "i3tasks_tries_lost_total") == {("default", ADD): 1}
    assert since(before, "i3tasks_tries_retried_total") == {("default", ADD): 1}
    assert since(before, "i3tasks_schedule_lateness_seconds_sum")["often",] == pytest.approx(20)
    assert list(since(before, "i3tasks_requests_denied_total")) == [("beat", "secret")]


def test_the_gauges_are_the_rows_whatever_process_is_asked() -> None:
    add.delay(1, 2)
    crunch.using(run_after=timedelta(hours=1)).delay([1])
    pause("heavy")
    presence = Presence(WorkerRole.WORKER, worker_id="w1", queues=["default"], concurrency=8, running=lambda: 3)
    presence.dispatched()
    presence.begin()
    presence.leave()
    presence.show()
    writer.flush(5)

    found = scrape()

    assert found["i3tasks_database_up"] == {frozenset(): 1}
    tries = {(dict(key)["queue"], dict(key)["state"]): value for key, value in found["i3tasks_queue_tries"].items()}
    assert (tries["default", "waiting"], tries["heavy", "deferred"], tries["default", "running"]) == (1, 1, 0)
    assert found["i3tasks_workers"] == {frozenset({("role", "worker"), ("state", "running")}): 1}
    assert (found["i3tasks_worker_slots"], found["i3tasks_worker_slots_busy"]) == ({frozenset(): 8}, {frozenset(): 3})
    paused = {dict(key)["queue"]: value for key, value in found["i3tasks_queue_paused"].items()}
    assert (paused["heavy"], paused["default"]) == (1, 0)
    assert abs(found["i3tasks_last_dispatch_timestamp_seconds"][frozenset()] - timezone.now().timestamp()) < 60
    assert "i3tasks_last_beat_timestamp_seconds" not in found


def test_the_rows_are_read_once_for_many_scrapes(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    monkeypatch.setattr(gauges, "CACHED_SECONDS", 1000)
    cached = gauges.RowGauges(lambda now: reads.append(now) or figures(now))  # type: ignore[func-returns-value]

    first, second = list(cached.collect()), list(cached.collect())

    assert len(reads) == 1
    assert [metric.samples for metric in first] == [metric.samples for metric in second]


def test_without_the_database_the_counters_are_still_told() -> None:
    def away(now: datetime) -> Any:
        raise OperationalError("away")

    [metric] = gauges.RowGauges(away).collect()

    assert [(sample.name, sample.value) for sample in metric.samples] == [("i3tasks_database_up", 0)]


def test_names_that_rows_make_up_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "MOST_VALUES", 3)
    monkeypatch.setattr(counters, "_enqueued", counters._Child(counters.ENQUEUED, "task", "queue"))
    before = scrape()
    for number in range(10):
        facts = {"task": f"made.up{number}", "queue": "default"}
        counters._on_enqueued(EVENTS["execution_enqueued"], facts)

    found = since(before, "i3tasks_executions_enqueued_total")
    assert found["default", "(other)"] == 7
    assert len(found) == 4


def test_a_web_server_of_many_processes_adds_its_counters_up(tmp_path: Path) -> None:
    code = """
import os, django
django.setup()
from i3tasks.contrib.prometheus.counters import ENQUEUED
from i3tasks.contrib.prometheus.gauges import RowGauges
from i3tasks.contrib.prometheus import rendering
rendering.GAUGES.collect = lambda: iter(())
def work():
    ENQUEUED.labels("shop.add", "default").inc(); os._exit(0)
for _ in range(2):
    child = os.fork()
    work() if child == 0 else os.waitpid(child, 0)
print(rendering.rendered()[0].decode())
"""
    environment = child_environment(PROMETHEUS_MULTIPROC_DIR=str(tmp_path), DJANGO_SETTINGS_MODULE="tests.settings")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )

    [(_, value)] = scraped(done.stdout)["i3tasks_executions_enqueued_total"].items()
    assert value == 2


# ------------------------------------------------------------------------------------------------------ the doors


def test_the_endpoint_asks_for_its_token(settings: Any) -> None:
    add.delay(1, 2)
    settings.I3TASKS = replace(settings.I3TASKS, metrics_token="a secret of the test")

    assert Client().get("/i3/tasks-metrics/").status_code == 401
    response = Client().get("/i3/tasks-metrics/", headers={"Authorization": "Bearer a secret of the test"})
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    found = scraped(response.content.decode())
    assert found["i3tasks_queue_tries"][frozenset({("queue", "default"), ("state", "waiting")})] == 1


def test_without_the_package_the_endpoint_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "i3tasks.contrib.prometheus.rendering", None)

    response = Client().get("/i3/tasks-metrics/")

    assert (response.status_code, response.json()["error"]) == (
        501,
        "The package is missing: pip install 'i3tasks[prometheus]'.",
    )


def test_a_worker_answers_on_a_port_of_its_own() -> None:
    server = serve("127.0.0.1", 0, "a secret of the test")
    url = f"http://127.0.0.1:{server.server_address[1]}/metrics"
    try:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(url, timeout=10)
        request = urllib.request.Request(url, headers={"Authorization": "Bearer a secret of the test"})
        with urllib.request.urlopen(request, timeout=10) as response:
            assert "i3tasks_database_up" in scraped(response.read().decode())
    finally:
        server.shutdown()
        server.server_close()


def test_a_port_that_is_taken_or_none_is_refused() -> None:
    server = serve("127.0.0.1", 0, None)
    try:
        with pytest.raises(CommandError, match="--metrics-port can't be listened on"):
            call_command("i3tasks_worker", "--no-emulator", "--metrics-port", f"127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(CommandError, match="port or host:port"):
        call_command("i3tasks_worker", "--metrics-port", "70000")


# ---------------------------------------------------------------------------------------- the dashboard and alerts


def queries() -> list[tuple[str, str]]:
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text("utf-8"))
    shown = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]]
    rules = (MONITORING / "alerts.yml").read_text("utf-8")
    return shown + re.findall(r"- alert: (\w+)\n +expr: (.+)\n", rules)


@pytest.fixture
def scrapes(settings: Any) -> Scrapes:
    """A shop on a bad day: some calls ran, one failed, one waits, a worker died, a beat came late."""
    before = scrape()
    test_lost_tries_late_slots_and_refused_requests_are_counted(settings)

    def run(task: Any, *args: Any) -> None:
        async_to_sync(execute)(task.delay(*args).task_execution_try)

    run(aadd, 1, 2)
    run(aadd, 1, 2)
    run_the_latest()  # a second message for it, which is refused
    run(fail)
    run_the_latest()
    now = timezone.now()
    TaskExecutionTry.objects.filter(is_completed=False).update(run_after=now - timedelta(minutes=7))
    TaskExecutionTry.objects.filter(is_completed=False).update(dispatch_at=now - timedelta(minutes=6))
    Worker.objects.create(
        pk="w1", role="worker", state="running", host="h", pid=1, version="1", queues=["heavy"], concurrency=10,
        running=4, started_at=now, heartbeat_at=now, dispatched_at=now - timedelta(minutes=3),
        beat_at=now - timedelta(minutes=4),
    )  # fmt: skip
    return Scrapes(before, scrape(), 60.0, now.timestamp())


def test_every_query_has_an_answer(scrapes: Scrapes) -> None:
    """Of metrics and labels that there are, with values as of that day."""
    answers = {name: [scrapes.query(text) for of, text in queries() if of == name] for name, _ in queries()}
    panels = {name: found for name, found in answers.items() if not name.startswith("I3Tasks")}
    alerts = {name: found[0] for name, found in answers.items() if name.startswith("I3Tasks")}

    assert len(panels) >= 15
    assert not [name for name, found in panels.items() if not all(found)], "an empty panel"
    assert list(panels["Failed in the last hour"][0].values()) == [1]
    assert list(panels["Workers"][0].values()) == [1]
    assert list(panels["Busy places"][0].values()) == [0.4]
    assert list(panels["Since the last dispatch"][0].values()) == [pytest.approx(180, abs=1)]
    assert {dict(key)["task"] for key in panels["Failures by task"][0]} >= {FAIL}
    quiet = {
        "I3TasksPausedForLong",
        "I3TasksWorkersFull",
        "I3TasksNoDatabase",
        "I3TasksSchedulesLate",
        "I3TasksRequestsRefused",
    }
    assert {name for name, found in alerts.items() if not found} == quiet
    assert {dict(key)["queue"] for key in alerts["I3TasksNoWorker"]} == {"default"}


def test_a_query_of_what_is_not_there_is_noticed(scrapes: Scrapes) -> None:
    for text in ("max(i3tasks_nothing)", "sum by (shop) (i3tasks_workers)", 'i3tasks_workers{shop="x"}'):
        with pytest.raises(Unknown):
            scrapes.query(text)


def test_every_metric_has_an_entry_in_the_docs() -> None:
    scrape()
    text = (ROOT / "docs" / "observability.md").read_text("utf-8")
    own = {metric.name for metric in (*counters.REGISTRY.collect(), *gauges._gauges(figures(timezone.now())))}
    own |= {"i3tasks_database_up", "i3tasks_last_dispatch_timestamp_seconds", "i3tasks_last_beat_timestamp_seconds"}

    documented = {name.removesuffix("_total") for name in re.findall(r"^\| `(i3tasks_\w+)", text, re.MULTILINE)}

    assert documented == own
    assert TaskExecution.objects.count() == 0, "and reading them writes nothing"
    assert os.environ.get("PROMETHEUS_MULTIPROC_DIR") is None

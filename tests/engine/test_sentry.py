"""What Sentry is told: a span for each call, a transaction for each try, errors with their try, and schedules."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sentry_sdk
from asgiref.sync import sync_to_async
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.dedupe import DedupeIntegration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport

from i3tasks import task
from i3tasks.contrib import sentry
from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.engine.assembly import make_engine
from i3tasks.engine.beat import Beat
from i3tasks.models import TaskExecutionTry, TaskSchedule
from i3tasks.store.expiry import expire_leases
from tests.shop.tasks import aadd, add, afail, fail
from tests.support.rigs import delivery_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

CARD = "4111-1111-1111-1111"


@task(max_retries=0, sensitive=("card",))
def charge(card: str) -> None:
    raise ValueError(f"no card {card}")


@task(max_retries=0)
def calls_another() -> None:
    add.delay(1, 2)
    raise ValueError("after the call")


class Kept(Transport):
    """Keeps in memory what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[tuple[str, dict[str, Any]]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.items += [(item.type or "", item.payload.json or {}) for item in envelope.items]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [payload for found, payload in self.items if found == kind]


@pytest.fixture
def kept() -> Iterator[Kept]:
    """Sentry's SDK as a project sets it up, with our part switched on."""
    transport = Kept()
    client = sentry_sdk.get_client()
    sentry_sdk.init(
        dsn="https://key@sentry.example.com/1",
        transport=transport,
        traces_sample_rate=1.0,
        default_integrations=False,  # most of them change modules of the whole process
        integrations=[LoggingIntegration(), DedupeIntegration()],
        enable_backpressure_handling=False,
    )
    sentry.instrument(crons=True, margin_minutes=3, longest_minutes=20)
    yield transport
    sentry.uninstrument()
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.get_global_scope().set_client(client)


async def execute(task_try: TaskExecutionTry) -> None:
    engine = make_engine(concurrency=2, threads=1)
    try:
        await engine.executor.execute(delivery_of(task_try))
    finally:
        engine.pool.close()


async def run(called: Any, *args: Any) -> TaskExecutionTry:
    task_try: TaskExecutionTry = (await called.adelay(*args)).task_execution_try
    await execute(task_try)
    return task_try


@pytest.mark.parametrize("called", [add, aadd])
async def test_each_try_is_a_transaction_that_says_what_it_ran(called: Any, kept: Kept) -> None:
    task_try = (await called.adelay(1, 2)).task_execution_try
    await TaskExecutionTry.objects.filter(pk=task_try.pk).aupdate(asked_at=timezone.now() - timedelta(seconds=40))
    await execute(task_try)
    [transaction] = kept.of("transaction")
    trace = transaction["contexts"]["trace"]
    assert (transaction["transaction"], transaction["transaction_info"]) == (called.spec.path, {"source": "task"})
    assert (trace["op"], trace["status"]) == ("queue.process", "ok")
    data = trace["data"]
    assert data["messaging.system"] == "gcp_pubsub"
    assert data["messaging.message.id"] == str(task_try.task_execution.uuid)
    assert data["messaging.destination.name"] == "default"
    assert data["messaging.message.retry.count"] == 0
    assert 40_000 <= data["messaging.message.receive.latency"] < 100_000
    assert transaction["tags"]["i3tasks.execution_id"] == str(task_try.task_execution_id)
    assert sentry_sdk.get_current_span() is None
    assert not kept.of("event")


def test_a_call_within_a_transaction_is_a_span_of_it(kept: Kept) -> None:
    with sentry_sdk.start_transaction(op="http.server", name="/order/"):
        handle = add.delay(1, 2)
    add.delay(3, 4)
    [transaction] = kept.of("transaction")
    [span] = [span for span in transaction["spans"] if span["op"] == "queue.publish"]
    assert span["description"] == add.spec.path
    assert (
        span["data"].items()
        >= {
            "messaging.message.id": str(handle.task_uuid),
            "messaging.destination.name": "default",
        }.items()
    )


async def test_only_the_last_failure_is_an_issue_and_it_has_its_try(kept: Kept) -> None:
    first = await run(fail, "broken")
    assert not kept.of("event"), "another try follows"
    second = await TaskExecutionTry.objects.select_related("task_execution").aget(try_number=2)
    await TaskExecutionTry.objects.filter(pk=second.pk).aupdate(run_after=None)
    await execute(second)
    [event] = kept.of("event")
    [error] = event["exception"]["values"]
    assert (error["type"], error["value"]) == ("ValueError", "broken")
    assert error["stacktrace"]["frames"][-1]["function"] == "fail"
    assert event["tags"].items() >= {"i3tasks.task": fail.spec.path, "i3tasks.try_number": "2"}.items()
    assert event["contexts"]["i3tasks"]["execution_id"] == str(first.task_execution_id)
    transactions = [item["contexts"]["trace"] for item in kept.of("transaction")]
    assert [(item["status"], item["data"]["messaging.message.retry.count"]) for item in transactions] == [
        ("internal_error", 0),
        ("internal_error", 1),
    ]
    assert event["contexts"]["trace"]["trace_id"] == transactions[1]["trace_id"]


async def test_neighbours_do_not_share_their_scopes(kept: Kept) -> None:
    for called in (afail, calls_another):
        await run(called)
    failed = {event["transaction"]: event["tags"]["i3tasks.task"] for event in kept.of("event")}
    assert failed == {called.spec.path: called.spec.path for called in (afail, calls_another)}
    [_, second] = kept.of("transaction")
    assert [span["op"] for span in second["spans"] if span["op"].startswith("queue")] == ["queue.publish"]


async def test_a_lost_try_is_an_issue_of_the_process_that_tells_it(kept: Kept) -> None:
    task_try = (await afail.adelay()).task_execution_try
    now = timezone.now()
    await TaskExecutionTry.objects.filter(pk=task_try.pk).aupdate(
        started_at=now - timedelta(seconds=60),
        lease_until=now - timedelta(seconds=30),
        worker_id="gone:1",
        dispatch_at=None,
        claim_token="00000000-0000-0000-0000-000000000001",
    )
    await sync_to_async(expire_leases)(10, clock=SYSTEM_CLOCK)
    [event] = kept.of("event")
    assert event["exception"]["values"][-1]["type"] == "WorkerLost"
    assert not kept.of("transaction")


async def test_what_is_sensitive_is_not_sent(kept: Kept) -> None:
    await run(charge, CARD)
    assert kept.of("event")
    assert kept.of("transaction")
    assert CARD not in repr(kept.items)


def test_inline_runs_leave_the_callers_scope_as_it_was(kept: Kept) -> None:
    sentry_sdk.set_tag("mine", "1")
    with sentry_sdk.start_transaction(op="http.server", name="/order/") as own:
        add.sync_run(1, 2)
        assert sentry_sdk.get_current_span() is own
        sentry_sdk.capture_message("after")
    [event] = kept.of("event")
    assert event["tags"] == {"mine": "1"}


async def test_a_schedule_is_a_cron_monitor(kept: Kept) -> None:
    for name, path in (("nightly", "add"), ("Bad One", "afail")):
        await TaskSchedule.objects.acreate(
            name=name,
            task_path="tests.shop.tasks",
            task_name=path,
            args=[1, 2] if path == "add" else [],
            cron="* * * * *",
            time_zone="Europe/Berlin",
        )
    now = timezone.now()
    await sync_to_async(Beat().pass_once)(now)
    await sync_to_async(Beat().pass_once)(now + timedelta(minutes=1))
    begun = kept.of("check_in")
    tries = [item async for item in TaskExecutionTry.objects.select_related("task_execution").order_by("pk")]
    by_uuid = {item.task_execution.uuid.hex: item for item in tries}
    assert {item["check_in_id"] for item in begun} == set(by_uuid)
    for item in begun:
        assert item["status"] == "in_progress"
        assert item["monitor_config"] == {
            "schedule": {"type": "crontab", "value": "* * * * *"},
            "timezone": "Europe/Berlin",
            "checkin_margin": 3,
            "max_runtime": 20,
        }
    for item in tries:
        await execute(item)
    ended = kept.of("check_in")[len(begun) :]
    assert {(item["monitor_slug"], item["status"]) for item in ended} == {
        ("nightly", "ok"),
        (sentry.slug("Bad One"), "error"),
    }
    assert {item["check_in_id"] for item in ended} == set(by_uuid)
    assert all(item["duration"] >= 0 for item in ended)


@pytest.mark.parametrize("name", ["nightly", "send_mail-2", "Nightly", "a b", "ä" * 90, "x" * 90, "0" * 64, "-"])
def test_a_slug_is_one_that_sentry_takes(name: str) -> None:
    slug = sentry.slug(name)
    assert 0 < len(slug) <= 50
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")


def test_names_that_look_alike_have_slugs_of_their_own() -> None:
    assert len({sentry.slug(name) for name in ("a b", "a-b", "A-b", "a.b")}) == 4


def test_without_the_sdk_the_setting_says_what_to_install(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, sentry=True)
    monkeypatch.setitem(sys.modules, "i3tasks.contrib.sentry", None)
    with pytest.raises(ImproperlyConfigured, match="pip install sentry-sdk"):
        apps.get_app_config("i3tasks").ready()


def test_i3tasks_itself_does_not_load_the_sdk() -> None:
    code = "import django; django.setup(); import i3tasks.engine.worker, sys; print('sentry_sdk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"

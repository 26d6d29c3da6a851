"""Each process that runs tries, dispatches or beats has a row, and keeps it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import AsyncClient, Client
from django.urls import reverse

from i3tasks.conf import get_config
from i3tasks.engine import push
from i3tasks.engine.gateway import writer
from i3tasks.engine.worker import Worker as Process
from i3tasks.engine.worker_row import Presence
from i3tasks.models import TaskExecutionTry, Worker, WorkerRole
from i3tasks.store import writer as writer_module
from i3tasks.store.operations import NOTE_WORKER, Operation
from i3tasks.types import DatabaseQueue
from tests.http.test_push import enqueued, message_of
from tests.shop.tasks import add, nap
from tests.support.rigs import NotingPublisher, auntil

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "_presence", None)
    monkeypatch.setattr(push, "_dispatcher", None)
    monkeypatch.setattr(push, "_engines", {})


async def row(**columns: Any) -> Worker:
    async with asyncio.timeout(20):
        while (found := await Worker.objects.filter(**columns).afirst()) is None:
            await asyncio.sleep(0.02)
    return found


async def test_a_worker_says_what_it_does_from_its_start_to_its_end(settings: Any) -> None:
    queue = DatabaseQueue("default", poll_seconds=0.05)
    settings.I3TASKS = replace(settings.I3TASKS, default_queue=queue, other_queues=(), heartbeat_seconds=0.1)
    worker = Process(get_config().worker_queues, concurrency=7, threads=2, worker_id="till-3")
    running = asyncio.create_task(worker.run())
    idle = await row(pk="till-3", dispatched_at__isnull=False, beat_at__isnull=False)
    handle = await nap.adelay(60)
    busy = await row(pk="till-3", running=1)
    assert (busy.role, busy.state, busy.pid, busy.queues, busy.concurrency) == (
        "worker",
        "running",
        os.getpid(),
        ["default"],
        7,
    )
    assert busy.heartbeat_at > idle.heartbeat_at, "it goes on without leases and with some"
    assert busy.started_at == idle.started_at

    worker.stop()
    draining = await row(pk="till-3", state="draining")
    assert draining.running == 1
    await handle.acancel()
    await running

    await row(pk="till-3", state="stopped", running=0)
    assert (await TaskExecutionTry.objects.aget()).worker_id == "till-3"


@pytest.mark.usefixtures("sent", "pushed_by_default")
async def test_a_web_process_is_there_once_it_runs_a_push() -> None:
    task_try = await enqueued(add, 1, 2)
    await AsyncClient().post(reverse("i3tasks-push"), message_of(task_try), content_type="application/json")

    found = await row(role="web", dispatched_at__isnull=False)
    assert (found.queues, found.state) == (["default", "push"], "running")
    assert (await TaskExecutionTry.objects.aget()).worker_id == found.pk


@pytest.mark.usefixtures("sent", "pushed_by_default")
def test_under_wsgi_all_requests_of_a_process_are_one_worker() -> None:
    for _ in range(3):
        task_try = add.delay(1, 2).task_execution_try
        Client().post(reverse("i3tasks-push"), message_of(task_try), content_type="application/json")

    writer.flush(5)
    [worker] = Worker.objects.all()
    assert set(TaskExecutionTry.objects.values_list("worker_id", flat=True)) == {worker.pk}


@pytest.mark.usefixtures("sent")
def test_post_tasks_beat_is_a_dispatcher_and_a_beat() -> None:
    Client().post(reverse("i3tasks-beat"))

    writer.flush(5)
    [worker] = Worker.objects.all()
    assert worker.role == "web"
    assert worker.dispatched_at is not None
    assert worker.beat_at is not None


def test_commands_of_one_pass_share_a_row(sent: NotingPublisher) -> None:
    for _ in range(2):
        call_command("i3tasks_beat", "--once")
        call_command("i3tasks_dispatch", "--once")

    writer.flush(5)
    facts = {worker.role: (worker.state, worker.dispatched_at is not None, worker.beat_at is not None)
             for worker in Worker.objects.all()}  # fmt: skip
    assert facts == {"beat": ("stopped", True, True), "dispatcher": ("stopped", True, False)}
    assert Worker.objects.count() == 2


async def test_heartbeats_go_on_after_the_database_was_away(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, heartbeat_seconds=0.1)
    monkeypatch.setattr(writer_module, "OUTAGE_DELAY", 0.0)
    fails = [3]
    run = NOTE_WORKER.run

    def note(*args: Any, **options: Any) -> Any:
        if fails[0]:
            fails[0] -= 1
            raise OperationalError("away")
        return run(*args, **options)

    failing: Operation[Any, Any] = Operation(note, survives_outage=False)
    monkeypatch.setattr("i3tasks.engine.worker_row.NOTE_WORKER", failing)
    monkeypatch.setattr(writer_module, "IN_ORDER", (*writer_module.IN_ORDER, failing))
    presence = Presence(WorkerRole.BEAT)
    presence.dispatched()
    presence.begin()
    try:
        found = await row(role="beat")
        assert found.dispatched_at is not None, "what happened meanwhile is told later"
        assert not fails[0]
    finally:
        presence.end()
        await auntil(lambda: presence._cancel is None)


@pytest.mark.parametrize("name", ["", "x" * 256, "a\nb"])
def test_a_worker_id_that_no_column_takes_is_refused(name: str) -> None:
    with pytest.raises(CommandError, match="1 to 255 printable characters"):
        call_command("i3tasks_worker", "--worker-id", name)

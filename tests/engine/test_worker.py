"""A worker in this process, on the embedded emulator; and what the command says before it starts one."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from i3tasks import RESULT, chain, task
from i3tasks.broker.errors import StreamBroken
from i3tasks.broker.receiver import Receiver
from i3tasks.conf import get_config
from i3tasks.emulator import EmulatorProcess
from i3tasks.engine.worker import EXIT_BROKEN, Worker
from i3tasks.management.commands import i3tasks_worker
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.types import DatabaseQueue, PullQueue, PushQueue
from tests.shop.flows import double
from tests.shop.tasks import aadd, add, aplace_order, crunch, describe, nap, place_order
from tests.support.children import free_port
from tests.support.rigs import afinished, working

pytestmark = pytest.mark.django_db(transaction=True)

SMALL_MULTIPLE = 25


@pytest.mark.usefixtures("on_embedded")
async def test_it_runs_both_kinds_of_every_pull_queue() -> None:
    async with working():
        handles = [await add.adelay(1, 2), await aadd.adelay(3, 4), await place_order.adelay("a", "1")]
        handles += [await aplace_order.adelay("b", "2"), await crunch.adelay([1, 2, 3])]
        await afinished(5)
    assert [row.outcome async for row in TaskExecution.objects.all()] == ["success"] * 5


@pytest.mark.usefixtures("on_embedded")
async def test_several_streams_bring_each_message_once_and_drain() -> None:
    async with working(concurrency=7, streams=3) as worker:
        await nap.adelay_many([(0,)] * 40)
        await afinished(40)
        streams = worker._receivers[0]._streams
        assert streams is not None
        receivers = streams._receivers
        assert [receiver._max_messages for receiver in receivers] == [3, 2, 2]
        assert all(receiver._session is not None for receiver in receivers)
    assert await TaskExecutionTry.objects.filter(is_success=True).acount() == 40
    assert await TaskExecutionTry.objects.acount() == 40


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--until-empty", "--processes", "2"], "--until-empty ends one process"),
        (["--until-empty", "--reload"], "--until-empty ends one process"),
        (["--reload", "--worker-id", "pod"], "both can't have the same --worker-id"),
        (["--reload", "--metrics-port", "0"], "both can't have the same --metrics-port"),
        (["--exclude-queue", "nope"], "'nope' not found"),
        (["--exclude-queue", "default", "--exclude-queue", "heavy"], "leaves this worker no queue"),
        (["--queue", "heavy", "--exclude-queue", "heavy"], "leaves this worker no queue"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(options: list[str], problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        call_command("i3tasks_worker", "--no-emulator", *options)


def test_a_queue_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(i3tasks_worker, "_run", lambda worker: None)

    call_command("i3tasks_worker", "--no-emulator", "--exclude-queue", "heavy")
    call_command("i3tasks_worker", "--no-emulator", "--until-empty", verbosity=0)

    assert re.findall("Running tasks of (.*), \\d+ at a time", capsys.readouterr().out) == ["default"]


async def test_until_empty_ends_once_all_that_is_due_has_run(settings: Any) -> None:
    settings.I3TASKS = replace(
        settings.I3TASKS, default_queue=DatabaseQueue("default", poll_seconds=0.1), other_queues=()
    )
    await chain(double.s(1), double.s(RESULT), double.s(RESULT)).adelay()
    await nap.adelay(0.3)
    await add.using(run_after=timedelta(hours=1)).adelay(1, 2)

    with anyio.fail_after(30):
        await Worker(get_config().worker_queues, concurrency=4, threads=2, until_empty=True).run()

    states = [task_try.is_success async for task_try in TaskExecutionTry.objects.order_by("pk")]
    assert sorted(states) == [False, *[True] * 4], "what is put off stays"


def test_more_streams_than_messages_are_refused() -> None:
    with pytest.raises(CommandError, match="--streams 5 is more than --concurrency 4"):
        call_command("i3tasks_worker", "--concurrency", "4", "--streams", "5", "--no-emulator")


@pytest.mark.usefixtures("on_embedded")
async def test_bound_tasks_are_told_about_their_run() -> None:
    async with working():
        await describe.adelay(5)
        await afinished(1)
    task_try = await TaskExecutionTry.objects.select_related("result").aget()
    assert task_try.result.result == {"value": 5, "try_number": 1, "queue": "default"}


@pytest.mark.usefixtures("on_embedded")
async def test_five_hundred_naps_take_a_small_multiple_of_one() -> None:
    async with working(concurrency=500):
        await nap.adelay(0)  # the first one finds topics and connections not yet made
        await afinished(1)
        begin = time.perf_counter()
        await nap.adelay(0.2)
        await afinished(2)
        one = time.perf_counter() - begin
        begin = time.perf_counter()
        await nap.adelay_many([(0.2,)] * 500)
        await afinished(502, 90)
        many = time.perf_counter() - begin
    ratio = many / one
    print(f"500 tasks took {ratio:.1f} times as long as one ({one:.2f} s)")
    assert ratio < SMALL_MULTIPLE
    tries = await TaskExecutionTry.objects.acount()
    assert tries == 502, "each was run once"


@task(max_retries=0)
async def hog() -> str:
    """A coroutine that blocks its loop for longer than a lease lasts."""
    time.sleep(2)
    return "done"


@pytest.mark.usefixtures("on_embedded")
async def test_a_body_that_blocks_the_loop_keeps_its_lease_and_its_neighbours(settings: Any) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, lease_seconds=1, heartbeat_seconds=0.3)
    async with working():
        await nap.adelay_many([(0.5,)] * 3)
        await hog.adelay()
        await afinished(4)
    tries = [task_try async for task_try in TaskExecutionTry.objects.all()]
    assert [(task_try.try_number, task_try.is_success) for task_try in tries] == [(1, True)] * 4


@pytest.mark.usefixtures("on_embedded")
async def test_a_deferred_task_runs_when_it_is_due_and_not_before() -> None:
    async with working():
        await add.using(run_after=timedelta(seconds=0.5)).adelay(1, 2)
        await afinished(1)
    task_try = await TaskExecutionTry.objects.aget()
    assert task_try.run_after is not None
    assert task_try.started_at is not None
    assert task_try.started_at >= task_try.run_after


@pytest.mark.usefixtures("on_embedded")
async def test_a_message_that_was_never_published_is_by_the_dispatcher(sent: Any) -> None:
    """The process that enqueued it died between its commit and its publish."""
    handle = await add.adelay(1, 2)
    assert len(sent.messages) == 1
    await TaskExecutionTry.objects.aupdate(dispatch_at=timezone.now())
    sent_for_real(sent)
    async with working():
        await afinished(1)
    assert (await TaskExecution.objects.aget(pk=handle.task_execution_id)).outcome == "success"


def sent_for_real(sent: Any) -> None:
    from i3tasks.broker.publisher import get_publisher

    sent.publish = lambda *messages: get_publisher().publish(*messages)


async def test_it_starts_without_a_broker_and_picks_up_when_one_appears(settings: Any, events: list[str]) -> None:
    port = free_port()
    settings.I3TASKS = replace(settings.I3TASKS, namespace="late", publish_grace_seconds=1)
    settings.PUBSUB_CONFIG = {"EMULATOR": True, "HOST": f"127.0.0.1:{port}", "PROJECT_ID": "late"}
    async with working():
        await add.adelay(1, 2)
        async with asyncio.timeout(20):
            while not {"publish_failed", "provisioning_failed"} & set(events):
                await asyncio.sleep(0.02)
        emulator = EmulatorProcess(host_port=f"127.0.0.1:{port}")
        await asyncio.to_thread(emulator.start)
        try:
            await afinished(1, 60)
        finally:
            await asyncio.to_thread(emulator.kill)
    assert "internal_error" not in events


async def test_it_stops_soon_when_its_broker_is_away(settings: Any) -> None:
    settings.PUBSUB_CONFIG = {"EMULATOR": True, "HOST": f"127.0.0.1:{free_port()}", "PROJECT_ID": "away"}
    async with asyncio.timeout(10):
        async with working():
            await asyncio.sleep(0.1)  # on its way into the wait for a stream
        assert not await TaskExecution.objects.aexists()


@pytest.mark.usefixtures("on_embedded")
async def test_what_runs_counts_towards_max_tasks_and_nothing_else() -> None:
    for _ in range(3):
        await (await add.adelay(1, 2)).acancel()  # its message is refused
    real = await add.adelay(3, 4)
    async with asyncio.timeout(30):
        await Worker(get_config().pull_queues, concurrency=1, threads=1, max_tasks=1).run()
    assert await real.aresult(timeout=5) == 7


@pytest.mark.usefixtures("on_embedded")
async def test_a_liveness_file_that_can_no_more_be_written_stops_nothing(tmp_path: Path) -> None:
    lost = tmp_path / "gone" / "alive"
    real = await add.adelay(3, 4)
    async with asyncio.timeout(30):
        await Worker(get_config().pull_queues, concurrency=1, threads=1, max_tasks=1, liveness_file=lost).run()
    assert await real.aresult(timeout=5) == 7


# -------------------------------------------------------------------------------------------------- the command


def test_a_liveness_file_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="liveness-file can't be written"):
        call_command("i3tasks_worker", liveness_file=tmp_path / "missing" / "alive")


def test_an_unknown_queue_is_refused_in_the_documented_words() -> None:
    with pytest.raises(CommandError, match=re.escape("Queue 'nope' not found in I3TASKS configuration.")):
        call_command("i3tasks_worker", queues=["nope"])


def test_a_push_queue_is_refused_in_the_documented_words() -> None:
    with pytest.raises(CommandError, match=re.escape("Queue 'push' is not a PullQueue. ")):
        call_command("i3tasks_worker", queues=["default", "push"])


def test_without_a_pull_queue_it_says_so_in_a_sentence(settings: Any) -> None:
    settings.I3TASKS = replace(
        settings.I3TASKS, default_queue=PushQueue("default", "web", "http://127.0.0.1:1/"), other_queues=()
    )
    with pytest.raises(CommandError, match=r"push queues only.*PullQueue"):
        call_command("i3tasks_worker")


def test_an_emulator_on_another_machine_that_is_away_is_not_started_here(settings: Any) -> None:
    settings.PUBSUB_CONFIG = {"EMULATOR": True, "HOST": "emulator.invalid:8085", "PROJECT_ID": "test"}
    with pytest.raises(CommandError, match=r"Nothing listens on emulator\.invalid:8085"):
        call_command("i3tasks_worker")


@pytest.mark.parametrize("option", ["--concurrency", "--threads"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_limits_are_positive_numbers(option: str, value: str) -> None:
    with pytest.raises(CommandError, match="positive number"):
        call_command("i3tasks_worker", f"{option}={value}")


def test_queues_may_be_pull_queues_only_in_name(settings: Any) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, default_queue=PullQueue("a.b", "w"), other_queues=())
    with pytest.raises(CommandError, match=re.escape("Queue 'a-b' not found")):
        call_command("i3tasks_worker", queues=["a-b"])


@pytest.mark.usefixtures("on_embedded")
async def test_a_worker_whose_client_keeps_breaking_drains_and_ends_for_another(
    monkeypatch: pytest.MonkeyPatch, events: list[str], tmp_path: Path
) -> None:
    """What runs then is ended first, and the liveness file is left to grow old."""
    broken = asyncio.Event()

    async def run(receiver: Receiver, deliver: Any) -> None:
        receiver._is_sound = False
        await broken.wait()
        raise StreamBroken("a thread has ended")

    monkeypatch.setattr(Receiver, "run", run)
    monkeypatch.setattr("i3tasks.engine.worker.LIVENESS_SECONDS", 0.05)
    settings = replace(get_config().settings, fallback_seconds=0.3)
    monkeypatch.setattr("i3tasks.engine.worker.get_config", lambda: replace(get_config(), settings=settings))
    alive = tmp_path / "alive"
    worker = Worker(get_config().worker_queues, concurrency=5, threads=2, liveness_file=alive)
    running = asyncio.create_task(worker.run())
    handle = await nap.adelay(0.5)
    await TaskExecutionTry.objects.aupdate(dispatch_at=timezone.now() - timedelta(minutes=5))
    async with asyncio.timeout(30):
        while not await TaskExecutionTry.objects.filter(lease_until__isnull=False).aexists():
            await asyncio.sleep(0.02)
        broken.set()
        await running
    assert worker.exit_code == EXIT_BROKEN
    assert events.count("receiver_given_up") == 2, "of both queues"
    assert await handle.aresult(timeout=5) is not None
    assert not alive.exists() or (time.time() - alive.stat().st_mtime) > 0.3

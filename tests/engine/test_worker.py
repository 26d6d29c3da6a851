"""A worker in this process, on the embedded emulator; and what the command says before it starts one."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from i3tasks import task
from i3tasks.conf import get_config
from i3tasks.emulator import EmulatorProcess
from i3tasks.engine.worker import Worker
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.types import PullQueue, PushQueue
from tests.shop.tasks import aadd, add, aplace_order, crunch, describe, nap, place_order
from tests.support.children import free_port
from tests.support.rigs import afinished, working

pytestmark = pytest.mark.django_db(transaction=True)

SMALL_MULTIPLE = 12


@pytest.mark.usefixtures("on_embedded")
async def test_it_runs_both_kinds_of_every_pull_queue() -> None:
    async with working():
        handles = [await add.adelay(1, 2), await aadd.adelay(3, 4), await place_order.adelay("a", "1")]
        handles += [await aplace_order.adelay("b", "2"), await crunch.adelay([1, 2, 3])]
        await afinished(5)
    assert [row.outcome async for row in TaskExecution.objects.all()] == ["success"] * 5


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

    sent.publish = lambda message: get_publisher().publish(message)


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

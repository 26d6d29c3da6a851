"""A worker in this process, on the embedded emulator."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db.models import QuerySet
from django.test import override_settings

from i3tasks import RESULT, chain, group
from i3tasks.conf import get_config
from i3tasks.emulator import EmulatorProcess
from i3tasks.engine.worker import Worker
from i3tasks.models import TaskExecution, TaskExecutionResult, TaskExecutionTry
from i3tasks.store.audit import audit
from i3tasks.types import I3TasksSettings
from tests.shop.flows import double, total
from tests.shop.tasks import aadd, add, aplace_order, nap, place_order

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    with EmulatorProcess() as process:
        yield process.host_port


@pytest.fixture(autouse=True)
def on_emulator(emulator: str) -> Iterator[None]:
    with override_settings(PUBSUB_CONFIG={"EMULATOR": True, "HOST": emulator, "PROJECT_ID": "test"}):
        yield


@asynccontextmanager
async def working(concurrency: int = 50, threads: int = 4) -> AsyncIterator[Worker]:
    worker = Worker(get_config().pull_queues, concurrency=concurrency, threads=threads)
    running = asyncio.create_task(worker.run())
    try:
        yield worker
    finally:
        worker.stop()
        await running


async def until_finished(count: int, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while await TaskExecution.objects.filter(outcome__isnull=False).acount() < count:
            await asyncio.sleep(0.02)


async def test_it_runs_both_kinds() -> None:
    async with working():
        handles = [await add.adelay(1, 2), await aadd.adelay(3, 4), await place_order.adelay("a", "1")]
        handles.append(await aplace_order.adelay("b", "2"))
        await until_finished(4)
    outcomes = [row.outcome async for row in TaskExecution.objects.all()]
    assert outcomes == ["success"] * 4


async def test_a_running_coroutine_is_cancelled_within_a_heartbeat() -> None:
    settings = I3TasksSettings(lease_seconds=1, heartbeat_seconds=0.2)
    with override_settings(I3TASKS=settings):
        async with working():
            handle = await nap.adelay(600)
            await until(TaskExecutionTry.objects.filter(started_at__isnull=False))
            await handle.acancel()
            await until(TaskExecution.objects.filter(outcome="cancelled"))
    task_try = await TaskExecutionTry.objects.aget()
    assert task_try.error_class == "i3tasks.exceptions.TaskCancelled"


async def test_a_workflow_runs_over_the_wire() -> None:
    async with working():
        started = await group(chain(double.s(n), double.s(RESULT)) for n in range(20)).then(total.s(RESULT)).adelay()
        await until(TaskExecution.objects.filter(task_name="total", outcome="success"))
    await started.arefresh_from_db()
    assert started.status == "success"
    result = await TaskExecutionResult.objects.aget(task_execution_try__task_execution__task_name="total")
    assert result.result == sum(4 * n for n in range(20))
    assert await sync_to_async(audit)() == []


async def until(queryset: QuerySet[Any], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not await queryset.aexists():
            await asyncio.sleep(0.02)

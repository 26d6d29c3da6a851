"""A worker in this process, on the embedded emulator."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from django.test import override_settings

from i3tasks.conf import get_config
from i3tasks.emulator import EmulatorProcess
from i3tasks.engine.worker import Worker
from i3tasks.models import TaskExecution
from tests.shop.tasks import aadd, add, aplace_order, place_order

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

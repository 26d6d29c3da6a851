"""Priority across workers: a thousand calls wait, and one that is more urgent comes afterwards."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from typing import Any

import pytest
from django.test import AsyncClient
from django.urls import reverse

from i3tasks import task
from i3tasks.broker.publisher import Outgoing
from i3tasks.core.envelope import Envelope
from i3tasks.engine.gateway import writer
from i3tasks.models import TaskExecutionTry
from tests.support.rigs import NotingPublisher, afinished, working

pytestmark = pytest.mark.django_db(transaction=True)

THOUSAND = 1000
SLOTS = 10  # of each of two workers
_gate = asyncio.Event()


@task(max_retries=0)
async def errand(number: int) -> int:
    await _gate.wait()
    return number


@task(max_retries=0, priority=100)
def urgent_errand(number: int) -> int:
    return number


@pytest.fixture(params=["embedded", pytest.param("google", marks=pytest.mark.google)])
def broker(request: pytest.FixtureRequest, settings: Any) -> None:
    """Settings that use the emulator of that kind, under a project that was never used before."""
    host = request.getfixturevalue("embedded") if request.param == "embedded" else None
    host = host or request.getfixturevalue("google_emulator").host_port
    project = f"test-{uuid.uuid4().hex[:10]}"
    settings.PUBSUB_CONFIG = {"EMULATOR": True, "HOST": host, "PROJECT_ID": project}


@pytest.fixture(autouse=True)
def gate() -> asyncio.Event:
    global _gate
    _gate = asyncio.Event()
    return _gate


async def place_of(task_try: TaskExecutionTry) -> int:
    """How many tries began before it."""
    await task_try.arefresh_from_db()
    assert task_try.started_at is not None
    return await TaskExecutionTry.objects.filter(started_at__lt=task_try.started_at).acount()


async def published(task_try: TaskExecutionTry) -> None:
    async with asyncio.timeout(15):
        while not await TaskExecutionTry.objects.filter(pk=task_try.pk, publish_count__gt=0).aexists():
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("broker")
async def test_of_a_thousand_and_one_the_urgent_one_is_among_the_next(gate: asyncio.Event) -> None:
    async with working(SLOTS), working(SLOTS):
        await errand.adelay_many([(number,) for number in range(THOUSAND)])
        await auntil_running(2 * SLOTS)
        handle = await urgent_errand.adelay(1)
        await published(handle.task_execution_try)
        gate.set()
        await afinished(THOUSAND + 1, 60)
    assert 2 * SLOTS <= await place_of(handle.task_execution_try) < 4 * SLOTS
    assert await TaskExecutionTry.objects.filter(is_success=True).acount() == THOUSAND + 1
    assert await TaskExecutionTry.objects.acount() == THOUSAND + 1, "each was run once"


async def auntil_running(count: int) -> None:
    async with asyncio.timeout(30):
        while await TaskExecutionTry.objects.filter(lease_until__isnull=False).acount() < count:
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("pushed_by_default")
async def test_a_pushed_message_brings_the_urgent_one_and_its_own_is_published_again(
    sent: NotingPublisher, gate: asyncio.Event
) -> None:
    gate.set()
    await errand.adelay_many([(number,) for number in range(THOUSAND)])
    handle = await urgent_errand.adelay(1)
    confirm_all(sent)
    own, other = sent.messages[:2]
    assert (await post(own))["task_execution_try_id"] == handle.task_execution_try.pk
    assert sent.try_ids[THOUSAND + 1 :] == [Envelope.from_bytes(own.data).task_execution_try_id]
    assert (await post(other))["result"] == 1
    assert (await post(sent.messages[-1]))["result"] == 0


def confirm_all(sent: NotingPublisher) -> None:
    """As Pub/Sub's confirmations would."""
    for message in sent.messages:
        message.on_done([message], None)
    writer.flush(30)


async def post(message: Outgoing) -> Any:
    """Push it. Gives what is answered about the try that was run."""
    pushed = {"data": base64.b64encode(message.data).decode(), "attributes": dict(message.attributes), "messageId": "1"}
    answer = await AsyncClient().post(
        reverse("i3tasks-push"), json.dumps({"message": pushed, "subscription": "s"}), content_type="application/json"
    )
    assert answer.status_code == 200, answer.content
    return answer.json()["result"]

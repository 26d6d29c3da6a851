"""Compares values of `fallback_seconds`: python -m pytest -n 0 tests/engine/compare_patience.py. Takes four minutes.

A worker runs what is published. Once, Pub/Sub loses all that it has confirmed; then it brings it late. No test: nothing
is asserted, and a plain run does not collect it.
"""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from i3tasks.broker.publisher import Publisher
from i3tasks.conf import get_config
from i3tasks.models import TaskExecution
from tests.engine.test_fallback import aadd, taken
from tests.support.rigs import NotingPublisher, afinished, working

__all__ = ["taken"]

LATE_BY = (3, 7, 12, 20)
CALLS = 50


@pytest.mark.parametrize("seconds", [5, 10, 15, 30])
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("on_embedded")
async def test_patience(
    settings: Any,
    sent: NotingPublisher,
    taken: list[int],
    events: list[str],
    seconds: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, fallback_seconds=seconds)
    late = Publisher(get_config())
    async with working():
        began = time.perf_counter()
        await confirmed(sent)
        await afinished(CALLS, 90)
        said = [f"fallback_seconds={seconds}: lost ones have ended after {time.perf_counter() - began:.0f} s"]
        for delay in LATE_BY:
            before, refused = len(taken), events.count("try_refused")
            messages = await confirmed(sent)
            await asyncio.sleep(delay)
            for message in messages:
                late.publish(replace(message, on_done=lambda *_: None))
            await afinished(await TaskExecution.objects.acount(), 90)
            await asyncio.sleep(2)
            said.append(
                f"late by {delay} s: {len(taken) - before} taken, {events.count('try_refused') - refused} refused"
            )
    with capsys.disabled():
        print("\n" + "; ".join(said))


async def confirmed(sent: NotingPublisher) -> list[Any]:
    """Messages that Pub/Sub has taken, and brings to no worker."""
    await aadd.adelay_many([(number, 1) for number in range(CALLS)])
    messages = list(sent.messages)
    sent.messages.clear()
    for message in messages:
        message.on_done([message], None)
    return messages

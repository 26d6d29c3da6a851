"""Leases from their claim on: a blocked loop costs none, and nothing starts whose lease may be over."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from i3tasks import task
from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.engine.gateway import InlineGateway
from i3tasks.engine.lease_renewal import HandedBack, Running
from i3tasks.exceptions import I3TasksError
from i3tasks.models import TaskExecutionTry
from i3tasks.store.operations import CLAIM
from i3tasks.store.requests import Claimed, Refusal, Renewed
from i3tasks.store.writer import Writer
from tests.engine.test_executor import running_engine
from tests.support.rigs import delivery_of

NOBODY: frozenset[int] = frozenset()


class Beats(Writer):
    """A writer whose heartbeats a test carries out."""

    def __init__(self) -> None:
        self.planned: list[Callable[[Any], None]] = []

    def later(self, delay: float, operation: Any, request: Any, then: Callable[[Any], None]) -> Callable[[], None]:
        self.planned.append(then)
        return lambda: self.planned.remove(then) if then in self.planned else None

    def beat(self, **renewed: frozenset[int]) -> None:
        self.planned.pop()(Renewed(**{"lost": NOBODY, "cancelled": NOBODY, "renewed": NOBODY, **renewed}))


class Rig:
    def __init__(self) -> None:
        self.seconds = 100.0
        self.writer = Beats()
        clock = replace(SYSTEM_CLOCK, monotonic=lambda: self.seconds)
        self.running = Running(self.writer, lease_seconds=30, heartbeat_seconds=10, clock=clock)

    def claimed(self, try_id: int) -> Claimed:
        now = datetime.now(UTC)
        answer = Claimed(try_id, try_id, uuid4(), uuid4(), 1, "m", "f", [], {}, {}, None, now, now, now)
        self.running.expect(answer)
        return answer

    async def reason_of(self, claimed: Claimed) -> BaseException | None:
        with self.running.hold(claimed) as run:
            return run.reason


async def test_a_lease_is_renewed_from_its_commit_on() -> None:
    rig = Rig()
    one, two = rig.claimed(1), rig.claimed(2)
    rig.running.expect(Refusal.LEASED)
    assert rig.running.leases == {1: one.token, 2: two.token}
    assert len(rig.writer.planned) == 1
    rig.writer.beat(renewed=frozenset({1, 2}))
    assert len(rig.writer.planned) == 1, "and again"
    assert await rig.reason_of(one) is None
    assert rig.running.leases == {2: two.token}


async def test_what_may_have_expired_does_not_start() -> None:
    """The loop was blocked, and so was the writer: no heartbeat got through."""
    rig = Rig()
    claimed = rig.claimed(1)
    rig.seconds += 25
    assert isinstance(await rig.reason_of(claimed), HandedBack)


async def test_what_was_renewed_while_the_loop_was_blocked_starts() -> None:
    rig = Rig()
    claimed, skipped = rig.claimed(1), rig.claimed(2)
    for _ in range(5):
        rig.seconds += 15
        rig.writer.beat(renewed=frozenset({1}))
    assert await rig.reason_of(claimed) is None
    assert isinstance(await rig.reason_of(skipped), HandedBack), "its row was locked each time"


async def test_what_was_lost_meanwhile_does_not_start_and_is_renewed_no_more() -> None:
    rig = Rig()
    claimed = rig.claimed(1)
    rig.writer.beat(lost=frozenset({1}))
    assert rig.running.leases == {}
    assert rig.writer.planned == [], "nothing is left to renew"
    assert isinstance(await rig.reason_of(claimed), HandedBack)


async def test_what_nothing_is_going_to_run_is_forgotten() -> None:
    rig = Rig()
    rig.claimed(1)
    rig.running.forget(1)
    rig.writer.beat()
    assert rig.running.leases == {}
    assert rig.writer.planned == []


# ------------------------------------------------------------------------------------------- on the real writer

release = threading.Event()
began: list[str] = []


@task
async def block_the_loop() -> None:
    """Does what no coroutine should."""
    began.append("blocker")
    assert release.wait(30)


@task(max_retries=0)
async def neighbour() -> str:
    began.append("neighbour")
    return "done"


@task(max_retries=0)
def plain_neighbour() -> str:
    began.append("neighbour")
    return "done"


def lease_of(try_id: int) -> datetime | None:
    return TaskExecutionTry.objects.values_list("lease_until", flat=True).get(pk=try_id)


def release_once_renewed_twice(try_id: int) -> None:
    """In a thread of its own: the loop is blocked."""
    from django.db import connection

    deadline, seen = time.monotonic() + 30, set[datetime]()
    while len(seen) < 3 and time.monotonic() < deadline:
        if (lease := lease_of(try_id)) is not None:
            seen.add(lease)
        time.sleep(0.02)
    connection.close()
    if len(seen) == 3:
        release.set()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("sent")
async def test_a_body_that_blocks_the_loop_costs_no_claim_that_was_committed_meanwhile(settings: Any) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, lease_seconds=1.5, heartbeat_seconds=0.2)
    release.clear()
    began.clear()
    blocking = (await block_the_loop.adelay()).task_execution_try
    waiting = (await neighbour.adelay()).task_execution_try
    assert blocking is not None
    assert waiting is not None
    watcher = threading.Thread(target=release_once_renewed_twice, args=(waiting.pk,))
    async with running_engine() as engine:
        first = asyncio.create_task(engine.executor.execute(delivery_of(blocking)))
        second = asyncio.create_task(engine.executor.execute(delivery_of(waiting)))
        watcher.start()
        await asyncio.gather(first, second)
        await asyncio.to_thread(watcher.join)
    assert sorted(began) == ["blocker", "neighbour"]
    ended = await TaskExecutionTry.objects.aget(pk=waiting.pk)
    assert (ended.is_success, ended.error_class) == (True, None)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("sent")
async def test_an_inline_claim_is_renewed_while_the_callers_loop_is_blocked(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, lease_seconds=1.5, heartbeat_seconds=0.2)
    release.clear()
    began.clear()
    ask = InlineGateway.ask

    async def ask_and_block(self: Any, operation: Any, request: Any, at_commit: Any = None) -> Any:
        answer = await ask(self, operation, request, at_commit)
        if operation is CLAIM:
            watcher = threading.Thread(target=release_once_renewed_twice, args=(request.try_id,))
            watcher.start()
            assert release.wait(30)
        return answer

    monkeypatch.setattr(InlineGateway, "ask", ask_and_block)
    ended = await neighbour.arun()
    assert (ended.is_success, began) == (True, ["neighbour"])


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("sent")
@pytest.mark.parametrize("called", [neighbour, plain_neighbour])
async def test_an_inline_run_whose_lease_may_be_over_is_left_to_a_worker(
    called: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    began.clear()
    monkeypatch.setattr(Running, "_reason_not_to_start", lambda self, expected: HandedBack())
    with pytest.raises(I3TasksError, match="A worker will run it"):
        await called.arun()
    waiting = await TaskExecutionTry.objects.aget()
    assert (waiting.is_completed, waiting.claim_token, began) == (False, None, [])
    assert waiting.dispatch_at is not None

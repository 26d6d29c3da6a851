"""Locks that are not to be had: the writer comes back for them, gives slots free, and takes them for no outage."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection
from django.utils import timezone
from psycopg import errors

from i3tasks.core.outcome import Success
from i3tasks.engine.dispatcher import Dispatcher
from i3tasks.exceptions import StoreUnavailable
from i3tasks.models import TaskExecutionTry
from i3tasks.store import lock_waits
from i3tasks.store.enqueue import NewExecution
from i3tasks.store.enqueue import enqueue as enqueue_calls
from i3tasks.store.fallback import WaitingRequest
from i3tasks.store.keys import Key
from i3tasks.store.operations import CLAIM, PUT_BACK, RENEW, SETTLE, TAKE_WAITING
from i3tasks.store.requests import Claimed, Refusal, Settled, TryRef
from i3tasks.telemetry import subscribe
from tests.store.helpers import enqueue, in_threads, open_transaction, request, says
from tests.store.test_writer import SOON, Spied, aenqueue, alease, writer

__all__ = ["writer"]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def said() -> Iterator[list[dict[str, Any]]]:
    """The fields of the events about locked rows."""
    events: list[dict[str, Any]] = []
    unsubscribe = subscribe(lambda event, facts: events.append(dict(facts)), ["rows_locked"])
    yield events
    unsubscribe()


@asynccontextmanager
async def rows_held(*try_ids: int) -> AsyncIterator[None]:
    """Another transaction has locked the rows of these tries while the block runs."""
    ids = ", ".join(map(str, try_ids))
    lock = open_transaction(f"SELECT 1 FROM i3tasks_taskexecutiontry WHERE id IN ({ids}) FOR UPDATE")
    await sync_to_async(lock.__enter__)()
    try:
        yield
    finally:
        await sync_to_async(lock.__exit__)(None, None, None)


def given_up(state: type[Exception]) -> Callable[[], None]:
    def give_up() -> None:
        raise OperationalError("the database gave up on a lock") from state()

    return give_up


@pytest.mark.parametrize("state", [errors.DeadlockDetected, errors.LockNotAvailable, errors.SerializationFailure])
async def test_a_lock_that_is_not_to_be_had_is_no_outage(
    writer: Spied, events: list[str], state: type[Exception]
) -> None:
    [claimed] = await alease()
    [task_try] = await aenqueue()
    failures = [given_up(state)] * 7
    writer.before = lambda: failures.pop()() if failures else None
    settled, won = await asyncio.gather(
        writer.ask(SETTLE, says(claimed, Success(1))), writer.ask(CLAIM, request(task_try))
    )
    assert isinstance(settled, Settled)
    assert isinstance(won, Claimed)
    assert failures == []
    assert "store_unavailable" not in events


@pytest.mark.postgres
async def test_a_claim_of_a_held_row_gives_its_slot_back_after_a_while(
    writer: Spied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_waits, "CLAIM_SECONDS", 0.1)
    [task_try] = await aenqueue()
    async with rows_held(task_try.pk):
        assert await writer.ask(CLAIM, request(task_try)) is Refusal.LOCKED
    assert isinstance(await writer.ask(CLAIM, request(task_try)), Claimed)


@pytest.mark.postgres
async def test_rows_that_stay_locked_are_reported_once_a_minute(
    writer: Spied, monkeypatch: pytest.MonkeyPatch, said: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(lock_waits, "CLAIM_SECONDS", 0.1)
    [claimed], [waiting] = await alease(), await aenqueue()
    async with rows_held(claimed.try_id, waiting.pk):
        assert await writer.ask(CLAIM, request(waiting)) is Refusal.LOCKED
        settling = asyncio.ensure_future(writer.ask(SETTLE, says(claimed, Success(1))))
        assert await writer.ask(CLAIM, request(waiting)) is Refusal.LOCKED
        [facts] = said
        assert facts["tries"] == [waiting.pk]
        assert facts["seconds"] >= 0.1
        monkeypatch.setattr(lock_waits, "SAID_SECONDS", 0)  # a minute later
        async with asyncio.timeout(SOON):
            while said[-1]["tries"] != [claimed.try_id]:
                await asyncio.sleep(0.005)
    assert isinstance(await settling, Settled)


@pytest.mark.postgres
async def test_a_row_that_is_locked_for_a_moment_is_not_reported(writer: Spied, said: list[dict[str, Any]]) -> None:
    [task_try] = await aenqueue()
    async with rows_held(task_try.pk):
        claiming = asyncio.ensure_future(writer.ask(CLAIM, request(task_try)))
        await asyncio.sleep(0.1)
    assert isinstance(await claiming, Claimed)
    assert said == []


async def test_a_full_queue_refuses_claims_and_forgets_no_outcome_and_no_heartbeat(writer: Spied) -> None:
    [claimed] = await alease()
    [task_try] = await aenqueue()
    writer._thread._max_queued = 0
    with pytest.raises(StoreUnavailable):
        await writer.ask(CLAIM, request(task_try))
    assert isinstance(await writer.ask(SETTLE, says(claimed, Success(1))), Settled)
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    class Nothing:
        leases: dict[int, Any] = {}
        lease_seconds = 30.0

    writer.later(0.01, RENEW, Nothing(), lambda answer: loop.call_soon_threadsafe(answered.set_result, answer))
    assert not (await asyncio.wait_for(answered, 20)).lost


async def test_an_outcome_outlives_an_outage_though_the_queue_is_full(writer: Spied) -> None:
    [claimed] = await alease()
    writer._thread._max_queued = 0

    def away() -> None:
        raise OperationalError("server closed the connection unexpectedly")

    failures = [away] * 5
    writer.before = lambda: failures.pop()() if failures else None
    assert isinstance(await writer.ask(SETTLE, says(claimed, Success(1))), Settled)
    assert failures == []


@pytest.mark.postgres
@pytest.mark.usefixtures("sent")
def test_the_dispatcher_does_not_spin_on_a_due_row_that_is_held() -> None:
    [held] = enqueue()
    TaskExecutionTry.objects.update(dispatch_at="2020-01-01T00:00Z")
    dispatcher = Dispatcher()
    with open_transaction(f"SELECT 1 FROM i3tasks_taskexecutiontry WHERE id = {held.pk} FOR UPDATE"):
        waits = [dispatcher.pass_once() for _ in range(4)]
    assert waits[1:] == [0.5, 0.5, 0.5]
    dispatcher.pass_once()
    assert TaskExecutionTry.objects.filter(dispatch_at__year=2020).count() == 0


@pytest.mark.postgres
def test_keyed_calls_in_opposite_orders_do_not_deadlock() -> None:
    def calls(names: list[str]) -> list[NewExecution]:
        return [NewExecution("m", "f", [name], {}, key=Key(f"key:{name}", None)) for name in names]

    names = [str(number) for number in range(60)]

    def write(order: list[str]) -> list[Any]:
        answers = enqueue_calls(calls(order), now=timezone.now())
        assert [task_try.task_execution.task_args for task_try, _ in answers] == [[name] for name in order]
        return [task_try.pk for task_try, is_new in answers if is_new]

    written = in_threads([lambda: write(names), lambda: write(names[::-1])] * 2)
    assert sum(map(len, written)) == len(names)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM i3tasks_taskkey")
        assert cursor.fetchone() == (len(names),)


@pytest.mark.postgres
async def test_what_a_worker_took_and_could_not_claim_is_due_soon_after_the_lock_is_gone(writer: Spied) -> None:
    [task_try] = await aenqueue()
    await TaskExecutionTry.objects.aupdate(dispatch_at="2021-01-01T00:00Z")
    asked = WaitingRequest(("default",), None, timedelta(0), room=10, threads=10)
    [ref] = await writer.ask(TAKE_WAITING, asked)
    held = open_transaction(f"SELECT 1 FROM i3tasks_taskexecutiontry WHERE id = {task_try.pk} FOR UPDATE")
    await sync_to_async(held.__enter__)()
    assert await writer.ask(CLAIM, request(task_try)) is Refusal.LOCKED
    writer.post(PUT_BACK, ref)
    assert await writer.ask(TAKE_WAITING, asked) == []
    await sync_to_async(held.__exit__)(None, None, None)
    freed = time.monotonic()
    again: list[TryRef] = []
    while not again and time.monotonic() < freed + 30:
        again = await writer.ask(TAKE_WAITING, asked)
    print(f"taken again {time.monotonic() - freed:.2f} s after the lock was gone")
    assert [found.try_id for found in again] == [task_try.pk]

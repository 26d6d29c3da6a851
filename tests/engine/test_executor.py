"""The executor's verdict on every kind of message, and what the rows say afterwards, whatever the body did."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DataError, OperationalError
from django.utils import timezone

from i3tasks.core.deciding import GiveUp
from i3tasks.core.envelope import Envelope
from i3tasks.core.outcome import Failure, Released, Success
from i3tasks.engine.assembly import Engine, make_engine
from i3tasks.engine.executor import PUT_OFF, Executor
from i3tasks.engine.gateway import writer
from i3tasks.engine.lease_renewal import HandedBack
from i3tasks.engine.report import NotRun, Report, Verdict
from i3tasks.exceptions import StoreUnavailable
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store.operations import CLAIM
from i3tasks.store.requests import Refusal
from tests.shop import hostile
from tests.shop.tasks import add, fail, nap
from tests.support.rigs import NotingPublisher, auntil, delivery, delivery_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

LONG_AGO = timedelta(minutes=11)


@asynccontextmanager
async def running_engine(concurrency: int = 20, threads: int = 4) -> AsyncIterator[Engine]:
    engine = make_engine(concurrency=concurrency, threads=threads)
    try:
        yield engine
    finally:
        engine.pool.close()


async def execute(task_try: TaskExecutionTry, **changes: Any) -> Report:
    async with running_engine() as engine:
        return await engine.executor.execute(delivery_of(task_try, **changes))


async def enqueued(task: Any, *args: Any, **kwargs: Any) -> TaskExecutionTry:
    return (await task.adelay(*args, **kwargs)).task_execution_try


async def row(task_try: TaskExecutionTry) -> Any:
    return await TaskExecutionTry.objects.select_related("task_execution", "result").aget(pk=task_try.pk)


async def change(task_try: TaskExecutionTry, **columns: Any) -> None:
    await TaskExecutionTry.objects.filter(pk=task_try.pk).aupdate(**columns)


@pytest.fixture(autouse=True)
def gates() -> Iterator[None]:
    hostile.NOTES.clear()
    yield
    for gate in hostile.GATES.values():
        gate.set()
    hostile.GATES.clear()


# ----------------------------------------------------------------------------------------------------- refusals


async def test_an_unreadable_message_is_nacked_and_logged(events: list[str]) -> None:
    async with running_engine() as engine:
        report = await engine.executor.execute(delivery(b"\xff not ours"))
    assert report.verdict is Verdict.NACK
    assert events == ["envelope_refused"]


@pytest.mark.parametrize("encoding", ["nonsense", "base64", "", "utf\x00", "idna", "a.b"])
async def test_an_encoding_that_is_none_is_nacked(encoding: str) -> None:
    async with running_engine() as engine:
        message = delivery(Envelope(1, 1, "a", "b").to_bytes() + "ß".encode(), encoding=encoding)
        assert (await engine.executor.execute(message)).verdict is Verdict.NACK


async def test_a_young_unknown_try_is_nacked_quietly(events: list[str]) -> None:
    report = await execute(TaskExecutionTry(pk=10**9, task_execution_id=1))
    assert (report.verdict, report.reason, events) == (Verdict.NACK, Refusal.UNKNOWN, [])


async def test_an_old_unknown_try_is_acked_with_an_event(events: list[str]) -> None:
    report = await execute(TaskExecutionTry(pk=10**9, task_execution_id=1), published=timezone.now() - LONG_AGO)
    assert (report.verdict, report.reason, events) == (Verdict.ACK, Refusal.UNKNOWN, ["try_unknown"])


async def test_a_try_of_another_execution_is_unknown() -> None:
    task_try = await enqueued(add, 1, 2)
    report = await execute(TaskExecutionTry(pk=task_try.pk, task_execution_id=task_try.task_execution_id + 1))
    assert (report.verdict, report.reason) == (Verdict.NACK, Refusal.UNKNOWN)
    assert (await TaskExecutionTry.objects.aget()).started_at is None


async def test_a_duplicate_is_acked_and_runs_nothing() -> None:
    task_try = await enqueued(hostile.give, "opaque")
    assert (await execute(task_try)).reason is None
    before = await row(task_try)
    report = await execute(task_try)
    assert (report.verdict, report.reason, report.outcome) == (Verdict.ACK, Refusal.COMPLETED, None)
    assert (await row(task_try)).updated_at == before.updated_at


async def test_deliveries_at_the_same_time_run_the_body_once() -> None:
    task_try = await enqueued(nap, 1)
    async with running_engine() as engine:
        reports = await asyncio.gather(*(engine.executor.execute(delivery_of(task_try)) for _ in range(10)))
    assert {report.verdict for report in reports} == {Verdict.ACK}
    assert Counter(report.reason for report in reports) == {None: 1, Refusal.LEASED: 9}


async def test_a_try_that_is_not_due_is_acked_and_stays_for_the_dispatcher() -> None:
    task_try = await enqueued(add.using(run_after=3600), 1, 2)
    report = await execute(task_try)
    assert (report.verdict, report.reason) == (Verdict.ACK, Refusal.NOT_DUE)
    assert task_try.run_after is not None
    assert (await row_of_pending(task_try)).dispatch_at == task_try.run_after + timedelta(microseconds=1)


async def row_of_pending(task_try: TaskExecutionTry) -> TaskExecutionTry:
    return await TaskExecutionTry.objects.aget(pk=task_try.pk, is_completed=False, claim_token=None, started_at=None)


async def test_a_cancelled_execution_is_acked_and_does_not_run() -> None:
    task_try = await enqueued(add, 1, 2)
    await TaskExecution.objects.aupdate(cancel_requested_at=timezone.now())
    report = await execute(task_try)
    assert (report.verdict, report.reason) == (Verdict.ACK, Refusal.CANCELLED)
    assert (await TaskExecutionTry.objects.aget()).started_at is None


@pytest.mark.parametrize("error", [StoreUnavailable(), OperationalError("gone"), DataError("no")])
async def test_a_database_that_gives_no_answer_nacks(error: Exception) -> None:
    task_try = await enqueued(add, 1, 2)
    async with engine_over(Refusing(claim=error)) as executor:
        report = await executor.execute(delivery_of(task_try))
    assert report.verdict is Verdict.NACK
    assert report.reason is NotRun.NO_ANSWER


class Locked:
    """A store in which another transaction holds all rows."""

    async def ask(self, operation: Any, request: Any, at_commit: Any = None) -> Refusal:
        assert operation is CLAIM
        at_commit(Refusal.LOCKED)
        return Refusal.LOCKED


async def test_a_try_whose_row_stays_locked_is_nacked_with_an_event(events: list[str]) -> None:
    task_try = await enqueued(add, 1, 2)
    async with engine_over(Locked()) as executor:
        report = await executor.execute(delivery_of(task_try))
    assert (report.verdict, report.reason, events[-1]) == (Verdict.NACK, Refusal.LOCKED, "try_refused")


async def test_a_closing_pool_nacks_what_waits_for_a_slot() -> None:
    first, second = await enqueued(nap, 0.2), await enqueued(nap, 0)
    async with running_engine(concurrency=1) as engine:
        running = asyncio.create_task(engine.executor.execute(delivery_of(first)))
        await auntil(lambda: engine.running.leases)
        waiting = asyncio.create_task(engine.executor.execute(delivery_of(second)))
        await asyncio.sleep(0)
        engine.pool.stop_admitting()
        report = await waiting
        assert (report.verdict, report.reason) == (Verdict.NACK, NotRun.STOPPING)
        assert isinstance((await running).outcome, Success), "what runs may end"
    await row_of_pending(second)


# ------------------------------------------------------------------------------------------------- unregistered


async def renamed(name: str) -> TaskExecutionTry:
    """A call whose task has meanwhile got another name."""
    task_try = await enqueued(add, 1, 2)
    await TaskExecution.objects.aupdate(task_name=name)
    return task_try


async def test_an_unregistered_task_is_put_off_without_using_up_a_retry(events: list[str]) -> None:
    task_try = await renamed("gone")
    report = await execute(task_try)
    assert (report.verdict, report.outcome) == (Verdict.ACK, Released(PUT_OFF))
    assert "task_unregistered" in events
    again = await row_of_pending(task_try)
    assert again.dispatch_at - again.asked_at >= timedelta(minutes=1)
    assert (again.try_number, await TaskExecutionTry.objects.acount()) == (1, 1)


async def test_an_unregistered_task_is_a_recorded_failure_after_an_hour() -> None:
    task_try = await renamed("gone")
    await change(task_try, asked_at=timezone.now() - timedelta(hours=1, seconds=1))
    report = await execute(task_try)
    assert report.verdict is Verdict.ACK
    ended = await row(task_try)
    assert (ended.is_completed, ended.is_success) == (True, False)
    assert ended.error_class == "i3tasks.exceptions.UnknownTaskError"
    assert (ended.task_execution.outcome, await TaskExecutionTry.objects.acount()) == ("failed", 1), "no retry helps"


async def test_the_hour_of_a_deferred_task_begins_when_it_is_due() -> None:
    task_try = await renamed("gone")
    now = timezone.now()
    await change(task_try, asked_at=now - timedelta(days=3), run_after=now - timedelta(minutes=1))
    assert (await execute(task_try)).outcome == Released(PUT_OFF)


async def test_the_row_and_not_the_message_says_what_runs() -> None:
    task_try = await enqueued(add, 20, 3)
    message = delivery(Envelope(task_try.task_execution_id, task_try.pk, "tests.shop.tasks", "fail").to_bytes())
    async with running_engine() as engine:
        assert (await engine.executor.execute(message)).outcome == Success(23)


# ------------------------------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize("name", sorted(hostile.ERRORS))
@pytest.mark.parametrize("task", [hostile.throw, hostile.athrow], ids=["sync", "coroutine"])
async def test_whatever_a_body_raises_is_a_recorded_failure(task: Any, name: str) -> None:
    task_try = await enqueued(task, name)
    report = await execute(task_try)
    assert report.verdict is Verdict.ACK
    ended = await row(task_try)
    assert (ended.is_completed, ended.is_success, ended.task_execution.outcome) == (True, False, "failed")
    turned = task is hostile.athrow and name == "StopIteration"
    assert ended.error_class.endswith("RuntimeError" if turned else name), "Python itself turns that one"


@pytest.mark.parametrize("task", [hostile.descend, hostile.adescend], ids=["sync", "coroutine"])
async def test_endless_recursion_is_a_recorded_failure(task: Any) -> None:
    task_try = await enqueued(task)
    await execute(task_try)
    ended = await row(task_try)
    assert (ended.is_completed, ended.error_class) == (True, "RecursionError")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("opaque", "an opaque thing"),
        ("mute", "<Mute whose str() raised SystemExit>"),
        ("nul", "a\N{REPLACEMENT CHARACTER}b"),
        ("surrogate", "?"),
        ("nan", "nan"),
    ],
)
async def test_a_result_that_json_can_not_hold_is_kept_as_text(name: str, shown: str, events: list[str]) -> None:
    task_try = await enqueued(hostile.give, name)
    outcome = (await execute(task_try)).outcome
    assert isinstance(outcome, Success)
    assert outcome.value == shown
    assert outcome.text_of
    result = (await row(task_try)).result
    assert (result.result, result.text_of) == (shown, outcome.text_of)
    assert "result_kept_as_text" in events


async def test_a_result_that_raises_when_read_is_a_success_all_the_same() -> None:
    task_try = await enqueued(hostile.give, "trap")
    assert (await execute(task_try)).verdict is Verdict.ACK
    assert (await row(task_try)).is_success


@pytest.mark.parametrize("task", [hostile.nothing, hostile.anothing], ids=["sync", "coroutine"])
async def test_a_body_that_returns_nothing_is_a_success(task: Any) -> None:
    task_try = await enqueued(task)
    assert (await execute(task_try)).outcome == Success(None)
    assert (await row(task_try)).result.result is None


async def test_a_query_set_as_result_is_a_success() -> None:
    task_try = await enqueued(hostile.give_orders)
    await execute(task_try)
    assert (await row(task_try)).is_success


async def test_a_result_that_the_database_refuses_is_a_recorded_failure(events: list[str]) -> None:
    task_try = await enqueued(add, 1, 2)
    async with engine_over(Refusing(success=DataError("too much"))) as executor:
        report = await executor.execute(delivery_of(task_try))
    ended = await row(task_try)
    assert (ended.is_completed, ended.is_success, ended.task_execution.outcome) == (True, False, "failed")
    assert "too much" in ended.result.result
    assert isinstance(report.outcome, Failure), "the report must say what the rows say"
    assert isinstance(report.outcome.then, GiveUp)
    assert report.error is not None
    assert "execution_failed" in events
    assert "try_succeeded" not in events


async def test_a_failure_writes_the_next_try_in_the_same_settlement() -> None:
    task_try = await enqueued(fail)
    await execute(task_try)
    ended, following = [item async for item in TaskExecutionTry.objects.order_by("try_number")]
    assert (ended.is_completed, ended.is_success, following.try_number) == (True, False, 2)
    assert following.run_after >= ended.finished_at + timedelta(seconds=2), "the documented backoff"
    assert following.dispatch_at == following.run_after


async def test_a_retry_without_delay_is_published_at_once(sent: NotingPublisher, settings: Any) -> None:
    from i3tasks.types import I3TasksSettings, PullQueue

    settings.I3TASKS = I3TasksSettings(
        default_queue=PullQueue("default", "worker"), task_retry_backoff_base_seconds=None
    )
    task_try = await enqueued(fail)
    await execute(task_try)
    following = await TaskExecutionTry.objects.aget(try_number=2)
    assert sent.try_ids == [task_try.pk, following.pk]
    assert following.dispatch_at is not None, "until its publish is confirmed"


# --------------------------------------------------------------------------------------------------- timeouts


async def test_a_coroutine_over_its_timeout_is_cancelled_and_cleans_up() -> None:
    task_try = await enqueued(hostile.ahang)
    await execute(task_try)
    assert hostile.NOTES == ["cleaned up"]
    ended = await row(task_try)
    assert (ended.error_class, ended.is_success) == ("i3tasks.exceptions.TaskTimeout", False)


async def test_a_sync_body_over_its_timeout_keeps_its_thread_until_it_ends() -> None:
    hostile.GATES.update(one=threading.Event(), two=threading.Event())
    one, two = await enqueued(hostile.hang, "one"), await enqueued(hostile.hang.using(timeout=20), "two")
    async with running_engine(threads=1) as engine:
        await engine.executor.execute(delivery_of(one))
        assert (await row(one)).error_class == "i3tasks.exceptions.TaskTimeout"
        waiting = asyncio.create_task(engine.executor.execute(sync_delivery(two)))
        await asyncio.sleep(0.1)
        assert hostile.NOTES == ["in one"], "the only thread is still taken"
        assert (await TaskExecutionTry.objects.aget(pk=two.pk)).started_at is None, "so nothing is claimed for it"
        hostile.GATES["one"].set()
        await auntil(lambda: "in two" in hostile.NOTES)
        hostile.GATES["two"].set()
        assert isinstance((await waiting).outcome, Success)
        third = await enqueued(add, 1, 2)
        async with asyncio.timeout(10):
            assert (await engine.executor.execute(sync_delivery(third))).outcome == Success(3), "the count is right"


def sync_delivery(task_try: TaskExecutionTry) -> Any:
    return delivery(Envelope(task_try.task_execution_id, task_try.pk, "tests.shop.hostile", "hang").to_bytes())


async def test_a_coroutine_that_swallows_cancellation_is_recorded_and_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("i3tasks.engine.bodies.STOPPING_SECONDS", 0.3)
    hostile.GATES["stubborn"] = threading.Event()
    task_try = await enqueued(hostile.stubborn)
    await execute(task_try)
    assert hostile.NOTES == ["swallowed"]
    assert (await row(task_try)).error_class == "i3tasks.exceptions.TaskTimeout"
    hostile.GATES["stubborn"].set()
    await auntil(lambda: not [task for task in asyncio.all_tasks() if "stubborn" in repr(task)])


async def test_what_a_body_leaves_behind_is_told_that_its_database_thread_is_gone() -> None:
    hostile.GATES["late"] = threading.Event()
    task_try = await enqueued(hostile.straggle, "late")
    assert (await execute(task_try)).outcome == Success("left")
    left, *_ = hostile.NOTES
    hostile.GATES["late"].set()
    await asyncio.wait_for(left, 10)
    assert isinstance(hostile.NOTES[-1], RuntimeError), "not an unbounded thread and connection of its own"


async def test_a_try_that_is_handed_back_uses_up_no_retry() -> None:
    task_try = await enqueued(nap, 60)
    async with running_engine() as engine:
        running = asyncio.create_task(engine.executor.execute(delivery_of(task_try)))
        await auntil(lambda: engine.running.leases)
        engine.running.stop_all(HandedBack())
        report = await running
    assert (report.verdict, report.outcome) == (Verdict.ACK, Released())
    again = await row_of_pending(task_try)
    assert again.dispatch_at is not None
    assert (again.worker_id, again.lease_until, await TaskExecutionTry.objects.acount()) == (None, None, 1)


async def test_a_settlement_without_its_lease_changes_nothing(events: list[str]) -> None:
    task_try = await enqueued(nap, 0.1)
    async with running_engine() as engine:
        running = asyncio.create_task(engine.executor.execute(delivery_of(task_try)))
        await auntil(lambda: engine.running.leases)
        from uuid import uuid4

        other = uuid4()
        await change(task_try, claim_token=other)
        report = await running
    assert (report.verdict, report.reason) == (Verdict.ACK, NotRun.STALE)
    assert "settlement_stale" in events
    untouched = await TaskExecutionTry.objects.aget()
    assert (untouched.claim_token, untouched.is_completed) == (other, False)


# --------------------------------------------------------------------------------------------------- odd rows


@pytest.mark.parametrize("options", [{"max_retries": -1}, {"max_retries": "many"}, {"timeout": "long"}, {"other": 1}])
async def test_odd_options_in_a_row_stop_neither_it_nor_the_worker(options: dict[str, Any]) -> None:
    for task in (add, fail):
        task_try = await enqueued(task, *((1, 2) if task is add else ()))
        await TaskExecution.objects.filter(pk=task_try.task_execution_id).aupdate(options=options)
        assert (await execute(task_try)).verdict is Verdict.ACK
        assert (await row(task_try)).is_success is (task is add)


async def test_arguments_that_do_not_fit_are_a_recorded_failure() -> None:
    task_try = await enqueued(add, 1, 2)
    await TaskExecution.objects.aupdate(task_args=[1], task_kwargs={"nonsense": {"__i3tasks__": "uuid", "value": "x"}})
    await execute(task_try)
    assert (await row(task_try)).is_completed


# --------------------------------------------------------------------------------------------------- the seam


class Refusing:
    """A store that answers with these errors instead of carrying out what they stand for."""

    def __init__(self, claim: Exception | None = None, success: Exception | None = None) -> None:
        self._claim = claim
        self._success = success

    async def ask(self, operation: Any, request: Any, at_commit: Any = None) -> Any:
        if operation is CLAIM and self._claim:
            raise self._claim
        if isinstance(getattr(request, "outcome", None), Success) and self._success:
            raise self._success
        return await writer.ask(operation, request, at_commit)


@asynccontextmanager
async def engine_over(store: Any, follow_up: Callable[[Any], None] = lambda refs: None) -> AsyncIterator[Executor]:
    async with running_engine() as engine:
        yield Executor(store=store, pool=engine.pool, running=engine.running, follow_up=follow_up, worker_id="test")


async def test_times_are_the_databases_and_in_order() -> None:
    task_try = await enqueued(nap, 0)
    await execute(task_try)
    ended = await row(task_try)
    assert ended.started_at <= ended.finished_at
    assert ended.task_execution.finished_at == ended.finished_at
    assert isinstance(ended.finished_at, datetime)
    assert ended.finished_at.tzinfo is UTC
    assert await sync_to_async(lambda: ended.worker_id.count(":"))() == 2

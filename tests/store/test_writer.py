"""The writer: many requests in one transaction, answered after its commit; nothing that fails takes others with it."""

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection, connections

from i3tasks.core.clock import current_clock
from i3tasks.core.outcome import Success
from i3tasks.exceptions import StoreUnavailable
from i3tasks.models import TaskExecutionTry
from i3tasks.store import writer as module
from i3tasks.store.operations import CLAIM, CONFIRM, SETTLE
from i3tasks.store.postgres.together import can_ask_together
from i3tasks.store.requests import Claimed, Refusal, Settled, Settlement
from i3tasks.store.writer import Writer
from tests.store.helpers import enqueue, lease, open_transaction, request, row, says
from tests.support.databases import child_environment

pytestmark = pytest.mark.django_db(transaction=True)

SOON = 20.0


class Spied(Writer):
    """Notes each transaction, and lets a test step into it."""

    def __init__(self) -> None:
        super().__init__(current_clock)
        self.batches: list[int] = []
        self.connections: set[Any] = set()
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def _handle(self, items: list[Any]) -> None:
        if items := [item for item in items if item is not None]:
            super()._handle(items)

    def _ask_plain(self, items: Sequence[Any]) -> Any:
        if can_ask_together():
            self.before()
        asked = super()._ask_plain(items)
        answered = [item for item in items if item.request.try_id in asked.get(item.operation, ())]
        if answered:
            self._note(answered)
        return asked

    def _run_all(self, items: Sequence[Any], asked: Any) -> Any:
        self.before()
        answers = super()._run_all(items, asked)
        self._note(items)
        return answers

    def _note(self, items: Sequence[Any]) -> None:
        self.batches.append(len(items))
        self.connections.add(connections["default"])
        self.after()


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spied]:
    idle = [5.0]
    monkeypatch.setattr(module, "idle_seconds", lambda: idle[0])
    monkeypatch.setattr(module, "OUTAGE_DELAY", 0.02)
    made = Spied()
    yield made
    idle[0] = 0.0
    made.before = made.after = lambda: None
    made._thread.put(None)  # type: ignore[arg-type]  # wakes it to see that it is idle
    made.close(SOON)


def once(action: Callable[[], None]) -> Callable[[], None]:
    actions = [action]
    return lambda: actions.pop()() if actions else None


def lose_connection() -> None:
    raise OperationalError("server closed the connection unexpectedly")


async def aenqueue(count: int = 1) -> list[TaskExecutionTry]:
    return await sync_to_async(enqueue)(count)


async def alease(count: int = 1) -> list[Claimed]:
    return await sync_to_async(lambda: lease(*enqueue(count)))()


async def arow(pk: int) -> TaskExecutionTry:
    return await sync_to_async(row)(pk)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(SOON):
        while not await sync_to_async(condition)():
            await asyncio.sleep(0.005)


async def test_what_is_asked_together_is_one_transaction(writer: Spied) -> None:
    tries = await aenqueue(300)
    claimed = await asyncio.gather(*(writer.ask(CLAIM, request(item)) for item in tries))
    settled = await asyncio.gather(*(writer.ask(SETTLE, says(item, Success(1))) for item in claimed))  # type: ignore[arg-type]
    assert {type(item) for item in (*claimed, *settled)} == {Claimed, Settled}
    assert sum(writer.batches) == 600
    assert len(writer.batches) <= 8
    assert len(writer.connections) == 1
    assert await TaskExecutionTry.objects.filter(is_success=True).acount() == 300


async def test_what_an_answer_brings_about_is_written_with_what_waits(
    writer: Spied, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await aenqueue(2)
    settling = threading.Event()
    monkeypatch.setattr(module.time, "sleep", lambda seconds: settling.wait(SOON))
    waits: list[Any] = []
    loop = asyncio.get_running_loop()
    entered, go_on = asyncio.Event(), threading.Event()

    def hold() -> None:
        loop.call_soon_threadsafe(entered.set)
        go_on.wait(SOON)

    writer.before = once(hold)
    claiming = asyncio.create_task(writer.ask(CLAIM, request(first)))
    await entered.wait()
    waits.append(asyncio.create_task(writer.ask(CLAIM, request(second))))
    await asyncio.sleep(0)  # it asks
    go_on.set()
    claimed = await claiming
    assert isinstance(claimed, Claimed)
    waits.append(asyncio.create_task(writer.ask(SETTLE, says(claimed, Success(1)))))
    await asyncio.sleep(0)
    settling.set()
    assert [type(answer) for answer in await asyncio.gather(*waits)] == [Claimed, Settled]
    assert writer.batches == [1, 2]


async def test_the_answer_comes_after_the_commit(writer: Spied) -> None:
    [task_try] = await aenqueue()
    claimed = await writer.ask(CLAIM, request(task_try))
    assert isinstance(claimed, Claimed)
    assert (await arow(task_try.pk)).claim_token == claimed.token, "seen over another connection"


async def test_different_operations_share_a_transaction_and_get_their_own_answers(writer: Spied) -> None:
    [free], [held] = await aenqueue(), await alease()
    answers = await asyncio.gather(
        writer.ask(CLAIM, request(free)),
        writer.ask(SETTLE, says(held, Success(1))),
        writer.ask(CLAIM, request(free)),
    )
    assert [type(item) for item in answers] == [Claimed, Settled, Refusal]


async def claim_and_settle_three(writer: Spied) -> None:
    """Two batches: three claims, and then their settlements."""
    claimed = await asyncio.gather(*(writer.ask(CLAIM, request(item)) for item in await aenqueue(3)))
    settled = await asyncio.gather(*(writer.ask(SETTLE, says(item, Success(1))) for item in claimed))  # type: ignore[arg-type]
    assert {type(item) for item in settled} == {Settled}


async def test_a_plain_form_that_never_works_is_reported_and_left_out(
    writer: Spied, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of claims here. Settlements go on with theirs."""
    answer_plain = module.answer_plain
    asked: Counter[Any] = Counter()

    def answer_no_claims(requests: Any, now: Any) -> Any:
        asked.update(requests.keys())
        if CLAIM in requests:
            raise RuntimeError("a proxy that does not like it")
        return answer_plain(requests, now)

    monkeypatch.setattr(module, "answer_plain", answer_no_claims)
    for _ in range(3 * module.PLAIN_FAILURES):
        await claim_and_settle_three(writer)
    assert asked == {CLAIM: module.PLAIN_FAILURES, SETTLE: 3 * module.PLAIN_FAILURES}
    assert events.count("internal_error") == 1


async def test_a_plain_form_that_failed_for_another_reason_is_asked_again(
    writer: Spied, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_plain, asked = module.answer_plain, 0

    def answer_now_and_then(requests: Any, now: Any) -> Any:
        nonlocal asked
        asked += CLAIM in requests
        if asked % module.PLAIN_FAILURES:
            raise OperationalError("the connection is lost")
        return answer_plain(requests, now)

    monkeypatch.setattr(module, "answer_plain", answer_now_and_then)
    for _ in range(3 * module.PLAIN_FAILURES):
        await claim_and_settle_three(writer)
    assert asked == 3 * module.PLAIN_FAILURES
    assert "internal_error" not in events


async def test_what_fails_in_both_forms_says_nothing_about_the_plain_one(writer: Spied, events: list[str]) -> None:
    for _ in range(module.PLAIN_FAILURES + 1):
        claimed = await alease(4)
        answers = await asyncio.gather(
            *(writer.ask(SETTLE, says(item, Success("a\x00b"))) for item in claimed), return_exceptions=True
        )
        assert len(answers) == 4
    assert not any(writer._plain_failures.values())
    assert "internal_error" not in events


POISON = pytest.param({"x": object()}, id="no JSON")
NUL = pytest.param("a\x00b", id="refused by PostgreSQL", marks=pytest.mark.postgres)


@pytest.mark.parametrize("poison", [POISON, NUL])
async def test_what_the_database_refuses_fails_alone(writer: Spied, poison: Any) -> None:
    claimed = await alease(50)
    outcomes = [Success(poison if index == 17 else index) for index in range(50)]
    answers = await asyncio.gather(
        *(writer.ask(SETTLE, says(item, outcome)) for item, outcome in zip(claimed, outcomes, strict=True)),
        return_exceptions=True,
    )
    assert [index for index, answer in enumerate(answers) if answer != Settled()] == [17]
    assert isinstance(answers[17], Exception)
    assert not isinstance(answers[17], StoreUnavailable)
    assert await TaskExecutionTry.objects.filter(is_success=True).acount() == 49
    assert not (await arow(claimed[17].try_id)).is_completed


async def test_a_lease_won_for_a_waiter_that_is_gone_is_given_back(writer: Spied) -> None:
    [task_try] = await aenqueue()
    committed, cancelled = threading.Event(), threading.Event()

    def hold_the_answer() -> None:
        committed.set()
        assert cancelled.wait(SOON)

    writer.after = once(hold_the_answer)
    asking = asyncio.create_task(writer.ask(CLAIM, request(task_try)))
    assert await asyncio.to_thread(committed.wait, SOON)
    assert (await arow(task_try.pk)).claim_token is not None
    asking.cancel()
    cancelled.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: row(task_try).claim_token is None)
    handed_back = await arow(task_try.pk)
    assert (handed_back.started_at, handed_back.lease_until) == (None, None)
    assert handed_back.dispatch_at is not None


def test_a_lease_won_for_a_loop_that_is_closed_is_given_back(writer: Spied) -> None:
    [task_try] = enqueue()
    committed, closed = threading.Event(), threading.Event()

    def hold_the_answer() -> None:
        committed.set()
        assert closed.wait(SOON)

    writer.after = once(hold_the_answer)
    loop = asyncio.new_event_loop()
    asking = loop.create_task(writer.ask(CLAIM, request(task_try)))
    loop.run_until_complete(asyncio.sleep(0))
    assert committed.wait(SOON)
    asking.cancel()
    loop.run_until_complete(asyncio.wait([asking]))
    loop.close()
    closed.set()
    deadline = time.monotonic() + SOON
    while row(task_try).claim_token is not None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def test_a_settlement_counts_though_its_coroutine_has_gone(writer: Spied) -> None:
    [claimed] = await alease()
    asking = asyncio.create_task(writer.ask(SETTLE, says(claimed, Success(1))))
    await asyncio.sleep(0)
    asking.cancel()
    await until(lambda: row(claimed.try_id).is_success)


async def test_a_claim_whose_coroutine_has_gone_is_not_made(writer: Spied) -> None:
    first, second = await aenqueue(2)
    entered, gone = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert gone.wait(SOON)

    writer.before = once(hold)
    asking = asyncio.create_task(writer.ask(CLAIM, request(first)))
    assert await asyncio.to_thread(entered.wait, SOON)
    late = asyncio.create_task(writer.ask(CLAIM, request(second)))
    await asyncio.sleep(0)
    late.cancel()
    await asyncio.sleep(0)
    gone.set()
    await asking
    await asyncio.to_thread(writer.flush, SOON)
    assert (await arow(second.pk)).started_at is None
    assert sum(writer.batches) == 1


async def test_a_lost_reply_of_a_commit_is_asked_again_with_the_same_token(writer: Spied) -> None:
    [task_try] = await aenqueue()
    asked = request(task_try)
    writer.after = once(lose_connection)
    claimed = await writer.ask(CLAIM, asked)
    assert isinstance(claimed, Claimed)
    writer.after = once(lose_connection)
    assert await writer.ask(SETTLE, says(claimed, Success(1))) == Settled()
    assert (await arow(task_try.pk)).is_success


@pytest.mark.postgres
async def test_a_connection_that_the_server_killed_is_replaced(writer: Spied) -> None:
    claimed = await alease(2)
    assert await writer.ask(SETTLE, says(claimed[0], Success(1))) == Settled()
    [own] = writer.connections
    pid = own.connection.info.backend_pid

    def kill() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [pid])

    await sync_to_async(kill)()
    assert await writer.ask(SETTLE, says(claimed[1], Success(2))) == Settled()
    assert own.connection.info.backend_pid != pid


async def test_during_an_outage_claims_fail_and_settlements_wait(
    writer: Spied, caplog: pytest.LogCaptureFixture
) -> None:
    [claimed], [free] = await alease(), await aenqueue()
    writer.before = lose_connection
    settling = asyncio.create_task(writer.ask(SETTLE, says(claimed, Success("kept"))))
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="gave no answer"):
            await writer.ask(CLAIM, request(free))
    assert not settling.done()
    writer.before = lambda: None
    async with asyncio.timeout(SOON):
        assert await settling == Settled()
    assert isinstance(await writer.ask(CLAIM, request(free)), Claimed)
    assert [caplog.text.count(f"event='{name}'") for name in ("store_unavailable", "store_recovered")] == [1, 1]


@pytest.mark.postgres
async def test_a_server_that_may_not_write_is_an_outage_and_the_next_connection_may(writer: Spied) -> None:
    def become_a_standby() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = on")

    [claimed] = await alease()
    writer.before = once(become_a_standby)
    assert await writer.ask(SETTLE, says(claimed, Success("kept"))) == Settled()
    assert (await arow(claimed.try_id)).is_success


@pytest.mark.postgres
async def test_a_locked_row_waits_in_the_queue_and_its_neighbours_do_not(writer: Spied) -> None:
    held, free = await alease(2)
    theirs = open_transaction(f"SELECT 1 FROM i3tasks_taskexecutiontry WHERE id = {held.try_id} FOR UPDATE")
    await sync_to_async(theirs.__enter__)()
    waiting = asyncio.create_task(writer.ask(SETTLE, says(held, Success(1))))
    async with asyncio.timeout(SOON):
        assert await writer.ask(SETTLE, says(free, Success(2))) == Settled()
    assert not waiting.done()
    await sync_to_async(theirs.__exit__)(None, None, None)
    async with asyncio.timeout(SOON):
        assert await waiting == Settled()


async def test_a_full_queue_is_no_answer(writer: Spied) -> None:
    [task_try] = await aenqueue()
    writer._thread._max_queued = 0
    with pytest.raises(StoreUnavailable, match="queue is full"):
        await writer.ask(CLAIM, request(task_try))
    writer._thread._max_queued = 10


def test_several_loops_share_it(writer: Spied) -> None:
    tries = enqueue(60)
    won: list[Any] = []

    async def claim_some(start: int) -> None:
        loop = asyncio.get_running_loop()
        for part in range(start, 60, 3):
            won.append(await writer.ask(CLAIM, request(tries[part])))
            assert asyncio.get_running_loop() is loop

    threads = [threading.Thread(target=asyncio.run, args=(claim_some(start),)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert sorted(item.try_id for item in won) == [item.pk for item in tries]


async def test_idle_it_ends_and_closes_its_connection(writer: Spied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer._thread, "_idle_seconds", lambda: 0.0)
    for item in await aenqueue(2):
        await writer.ask(CLAIM, request(item))
        writer.close(SOON)
        assert all(used.connection is None for used in writer.connections)
        assert not writer._thread._latest.is_alive()  # type: ignore[union-attr]


async def test_later_asks_when_its_time_has_come_unless_called_off(writer: Spied) -> None:
    first, second = await alease(2)
    answers: list[Any] = []
    call_off = writer.later(0.05, SETTLE, says(first, Success(1)), answers.append)
    writer.later(0.1, SETTLE, says(second, Success(2)), answers.append)
    call_off()
    await until(lambda: answers)
    assert answers == [Settled()]
    assert not (await arow(first.try_id)).is_completed


async def test_an_error_in_who_is_told_keeps_no_answer_from_others(writer: Spied) -> None:
    first, second = await alease(2)
    entered, both = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert both.wait(SOON)

    def fail(_: Any) -> None:
        raise RuntimeError("a bug")

    writer.before = once(hold)
    writer.post(CONFIRM, await sync_to_async(nothing)())
    assert await asyncio.to_thread(entered.wait, SOON)
    writer.later(0, SETTLE, says(first, Success(1)), fail)
    asking = asyncio.create_task(writer.ask(SETTLE, says(second, Success(2))))
    await asyncio.sleep(0)
    both.set()
    async with asyncio.timeout(SOON):
        assert await asking == Settled()


async def test_confirmations_are_gathered_until_they_are_flushed_and_written_together(
    writer: Spied, monkeypatch: pytest.MonkeyPatch
) -> None:
    from i3tasks.store.requests import TryRef

    monkeypatch.setattr(module, "gather_seconds", lambda: 60.0)
    tries = await sync_to_async(enqueue)(3)
    for task_try in tries:
        writer.post(CONFIRM, TryRef.of(task_try))
    assert isinstance(await writer.ask(CLAIM, request(tries[0])), Claimed)
    assert writer.batches == [1], "the claim, which no confirmation holds up"
    assert await asyncio.to_thread(writer.flush, SOON)
    assert writer.batches == [1, 3]
    stored = [await sync_to_async(row)(task_try) for task_try in tries]
    assert [task_try.publish_count for task_try in stored] == [0, 1, 1]


def nothing() -> Any:
    """A confirmation of a try that is gone."""
    from i3tasks.store.requests import TryRef

    [task_try] = enqueue()
    gone = TryRef.of(task_try)
    task_try.task_execution.delete()
    return gone


@pytest.mark.parametrize("when", ["idle", "in a transaction"])
def test_a_forked_child_has_its_own_and_the_parents_goes_on(when: str) -> None:
    """As gunicorn does after preloading; in a process of its own, because this one has many threads."""
    claimed = lease(*enqueue(3))
    code = f"""
        import os, threading, time, django
        django.setup()
        from uuid import UUID
        from i3tasks.core.outcome import Success
        from i3tasks.store.requests import Settlement
        import i3tasks.store.writer as module
        from i3tasks.store.operations import SETTLE
        from i3tasks.engine.gateway import writer
        module.IDLE_SECONDS = 1.0
        rows = {[(item.try_id, item.execution_id, str(item.token)) for item in claimed]}
        in_transaction, settle_fast = threading.Event(), SETTLE.run
        def settle_slowly(requests, **options):
            answers = settle_fast(requests, **options)
            in_transaction.set()
            time.sleep(0.5)
            return answers
        def settle(number):
            pk, execution, token = rows[number]
            writer.post(SETTLE, Settlement(pk, execution, UUID(token), Success(number)))
            return when == "in a transaction" or writer.flush(20)
        when = {when!r}
        object.__setattr__(SETTLE, "run", settle_slowly)
        assert settle(0)
        assert in_transaction.wait(20)
        child = os.fork()
        when = "later"
        if child == 0:
            os._exit(0 if settle(1) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert settle(2)
        writer.close(20)
    """
    connection.close()
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)],
        env=child_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [row(item.try_id).result.result for item in claimed] == [0, 1, 2]


def test_it_starts_no_thread_until_it_is_asked() -> None:
    before = threading.active_count()
    assert Writer(current_clock).flush(0)
    assert threading.active_count() == before


def test_a_settlement_for_no_try_is_answered(writer: Spied) -> None:
    [claimed] = lease(*enqueue())
    unknown = Settlement(10**9, claimed.execution_id, claimed.token, Success(1))
    assert asyncio.run(asyncio.wait_for(writer.ask(SETTLE, unknown), SOON)) is not None

"""Waits end: with the end's result, with its failure, or with an error where the result could never come."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction
from django.test import override_settings
from django.utils import timezone

from i3tasks import RESULT, ChainHandle, chain, group, task
from i3tasks.engine.assembly import make_engine
from i3tasks.exceptions import ExecutionNotFound, I3TasksError, TaskFailed, WouldWaitForever
from i3tasks.models import TaskExecution, TaskExecutionTry, TaskGroup
from i3tasks.types import I3TasksSettings
from tests.shop.flows import break_down, double, note, with_hook
from tests.shop.isolated import wait_in_process
from tests.shop.tasks import add
from tests.support.databases import child_environment
from tests.support.rigs import NotingPublisher, delivery_of

INLINE = I3TasksSettings(force_sync=True)


@pytest.fixture
def inline() -> Iterator[None]:
    with override_settings(I3TASKS=INLINE):
        yield


@task(max_retries=0)
def wait_for_another(seconds: float) -> int:
    return add.delay(1, 2).result(timeout=seconds)


@task(max_retries=0)
async def await_another(seconds: float) -> int:
    return await (await double.adelay(1)).aresult(timeout=seconds)


@task(unique=True)
def only_one(value: int) -> int:
    return value


@task(max_retries=0)
def wait_for_a_group(seconds: float) -> Any:
    return group(double.s(1), double.s(2)).delay().result(timeout=seconds)


@task(max_retries=0)
async def await_a_group(seconds: float) -> Any:
    return await (await group(double.s(1)).adelay()).aresult(timeout=seconds)


@task(max_retries=0)
def wait_for_a_retry(seconds: float) -> int:
    handle = add.delay(1, 2)
    a_second_ago = timezone.now() - timedelta(seconds=1)
    TaskExecutionTry.objects.filter(task_execution=handle.task_execution_id).update(run_after=a_second_ago)
    return handle.result(timeout=seconds)


@task(max_retries=0, bind=True)
def wait_for_itself(seconds: float, task_metadata: Any = None) -> Any:
    return ChainHandle.get(task_metadata.task_uuid).result(timeout=seconds)


@task(max_retries=0, bind=True)
async def await_its_own_group(seconds: float, task_metadata: Any = None) -> Any:
    own = await task_metadata.aget_task_execution()
    shared = await TaskGroup.objects.aget(pk=own.task_group_id)
    return await shared.aresult(timeout=seconds)


@task(on_success=break_down.s("hook"))
def with_broken_hook() -> str:
    return "mine"


@pytest.mark.django_db
@pytest.mark.usefixtures("inline")
class TestEnds:
    def test_a_chain_gives_its_last_steps_result_and_the_first_is_reachable(self) -> None:
        handle = chain(double.s(1), double.s(RESULT), double.s(RESULT)).delay()
        assert (handle.result(), handle.first.result()) == (8, 2)

    def test_a_step_added_by_then_is_the_end(self) -> None:
        handle = add.delay(1, 2).then(double, 21)
        assert handle.result() == 42
        assert handle.first.result() == 3
        assert handle.then(double, 4).result() == 8

    def test_a_group_gives_its_members_results_or_its_callbacks(self) -> None:
        assert group(double.s(1), double.s(2)).delay().result() == [2, 4]
        assert group(double.s(1), double.s(2)).then(note.s("x", RESULT)).delay().result() == [2, 4]
        assert group().delay().result() == []
        assert chain(group(double.s(1)), note.s("y", RESULT), double.s(3)).delay().result() == 6
        handle = chain(group(double.s(1)), double.s(3)).delay()
        assert (handle.result(), handle.first.result()) == (6, [2])
        assert chain(double.s(1), group(double.s(2), double.s(3))).delay().result() == [4, 6]
        created = TaskGroup.create(note, 1, ["end", "value"])
        double.delay(1, __i3group__=created)  # type: ignore[call-arg]
        assert created.result() == "value"

    def test_a_hook_is_no_step_of_the_chain(self) -> None:
        assert chain(note.s("a", 1), with_hook.s("b"), note.s("c", 2)).delay().result() == 2
        assert chain(note.s("d", 1), with_hook.s("e")).delay().result() is None
        assert with_broken_hook.delay().result() == "mine"
        with pytest.raises(TaskFailed, match="break_down"):
            chain(with_broken_hook.s(), note.s("never")).delay().result()

    def test_a_failed_step_says_which(self) -> None:
        handle = chain(double.s(1), break_down.s("no"), note.s("never")).delay()
        with pytest.raises(TaskFailed, match=r"break_down #\d+: i3tasks\.exceptions\.PermanentError: no"):
            handle.result()
        assert handle.first.result() == 2
        with pytest.raises(TaskFailed, match="group"):
            group(double.s(1), break_down.s()).delay().result()

    def test_a_cancelled_chain_has_no_result(self) -> None:
        with override_settings(I3TASKS=I3TasksSettings()):
            handle = chain(note.s("a"), note.s("b")).delay()
            handle.cancel()
        with pytest.raises(TaskFailed, match="cancelled"):
            handle.result()

    def test_a_handle_is_found_again(self) -> None:
        handle = chain(double.s(1), double.s(RESULT)).delay()
        for key in (handle.task_uuid, str(handle.task_uuid), handle.task_execution_id, str(handle.task_execution_id)):
            assert key is not None
            found = ChainHandle.get(key)
            assert (found.task_uuid, found.result(), found.first.result()) == (handle.task_uuid, 4, 2)
        for unknown in (10**9, uuid4(), "nonsense", "9" * 500, ""):
            with pytest.raises(ExecutionNotFound, match="There is no execution"):
                ChainHandle.get(unknown)

    def test_a_step_for_a_row_that_retention_deleted_is_refused_in_a_sentence(self) -> None:
        handles: list[Any] = [add.delay(1, 2), chain(group(double.s(1)), double.s(2)).delay()]
        TaskExecution.objects.all().delete()
        TaskGroup.objects.all().delete()
        for handle in handles:
            with pytest.raises(ExecutionNotFound, match="retention has deleted it"), transaction.atomic():
                handle.then(double.s(3))
        with pytest.raises(ExecutionNotFound, match="There is no group"), transaction.atomic():
            handles[1].cancel()

    @pytest.mark.django_db(transaction=True)
    async def test_the_twins(self) -> None:
        started = await sync_to_async(lambda: chain(double.s(1), double.s(RESULT)).delay())()
        assert await started.aresult() == 4
        found = await ChainHandle.aget(started.task_uuid)  # type: ignore[arg-type]
        assert await found.first.aresult() == 2
        shared = await sync_to_async(lambda: group(double.s(1)).delay())()
        assert await shared.aresult() == [2]


@pytest.mark.django_db(transaction=True)
class TestTransactions:
    def test_in_the_transaction_that_enqueued_the_call_it_is_an_error_at_once(self, sent: NotingPublisher) -> None:
        with transaction.atomic():
            handles = [add.delay(1, 2), chain(double.s(1), note.s("x")).delay(), add.delay_many([(1, 2)])[0]]
            waits: list[Any] = [handle.result for handle in handles]
            waits += [group(double.s(1)).delay().result, handles[0].first.result]
            for wait in waits:
                with pytest.raises(WouldWaitForever, match="in the transaction that is still open"):
                    wait()
        with pytest.raises(TimeoutError, match="has not finished within"):
            handles[0].result(timeout=0.01)

    def test_so_it_is_for_every_handle_of_what_the_transaction_wrote(self, sent: NotingPublisher) -> None:
        with override_settings(I3TASKS=INLINE):
            failed = break_down.delay()
        with transaction.atomic():
            only_one.delay(1)
            add.using(idempotency_key="k").delay(1, 2)
            shared = group(double.s(1)).delay()
            assert failed.retry()
            waits: list[Any] = [
                only_one.delay(1).result,
                add.using(idempotency_key="k").delay(1, 2).result,
                ChainHandle.get(add.delay(3, 4).task_uuid).result,  # type: ignore[arg-type]
                TaskGroup.objects.get(pk=shared.pk).result,
                TaskGroup.create(note, 1, ["x"]).result,
                failed.result,
            ]
            for wait in waits:
                with pytest.raises(WouldWaitForever, match="in the transaction that is still open"):
                    wait(timeout=30)

    @pytest.mark.parametrize("run_after", [None, 3600])
    def test_a_savepoint_that_is_rolled_back_changes_nothing_for_other_calls(
        self, sent: NotingPublisher, run_after: Any
    ) -> None:
        with transaction.atomic():
            handle = add.using(run_after=run_after).delay(1, 2)
            with transaction.atomic():
                inner = add.delay(3, 4)
                transaction.set_rollback(True)
            with pytest.raises(WouldWaitForever, match="in the transaction that is still open"):
                handle.result()
            with pytest.raises(ExecutionNotFound):
                inner.result()

    def test_in_a_later_transaction_it_may_come(self, sent: NotingPublisher) -> None:
        handle = add.delay(1, 2)
        with transaction.atomic(), pytest.raises(TimeoutError) as raised:
            handle.result(timeout=0.01)
        assert not isinstance(raised.value, WouldWaitForever)

    def test_after_a_rollback_there_is_nothing_to_wait_for(self, sent: NotingPublisher) -> None:
        with transaction.atomic():
            handle, shared = add.delay(1, 2), group(double.s(1)).delay()
            transaction.set_rollback(True)
        for started in (handle, shared):
            with pytest.raises(ExecutionNotFound, match="rolled back"):
                started.result()

    @pytest.mark.postgres
    def test_another_thread_may_wait_for_the_commit(self, sent: NotingPublisher) -> None:
        raised: list[BaseException] = []

        def wait(handle: ChainHandle[int]) -> None:
            try:
                handle.result(timeout=0.2)
            except TimeoutError as error:
                raised.append(error)
            finally:
                connection.close()

        with transaction.atomic():
            thread = threading.Thread(target=wait, args=(add.delay(1, 2),))
            thread.start()
            thread.join()
        assert [type(error) for error in raised] == [TimeoutError]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("body", "settings_"),
    [
        (wait_for_another, I3TasksSettings(threads=2, concurrency=10)),
        (await_another, I3TasksSettings(threads=2, concurrency=2)),
        (wait_in_process, I3TasksSettings(threads=2, concurrency=10)),
    ],
)
async def test_when_all_bodies_wait_the_calls_they_wait_for_are_said_never_to_begin(
    body: Any, settings_: I3TasksSettings, sent: NotingPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in child_environment().items():
        monkeypatch.setenv(name, value)
    with override_settings(I3TASKS=settings_):
        engine = make_engine()
        handles = [await body.adelay(90) for _ in range(2)]
        bodies = {
            asyncio.create_task(engine.executor.execute(delivery_of(handle.task_execution_try)))  # type: ignore[arg-type]
            for handle in handles
        }
        async with asyncio.timeout(60):
            await asyncio.wait(bodies, return_when=asyncio.FIRST_COMPLETED)
            # Now there is room again, and the other one gets what it waits for.
            names = ("add", "double")
            for task_try in [row async for row in TaskExecutionTry.objects.filter(task_execution__task_name__in=names)]:
                await engine.executor.execute(delivery_of(task_try))
            await asyncio.wait(bodies)
        engine.pool.close()
    failed = TaskExecutionTry.objects.filter(task_execution__task_name=body.__name__, is_success=False)
    classes = [row.error_class async for row in failed]
    assert classes
    assert set(classes) == {"i3tasks.exceptions.WouldWaitForever"}


@pytest.mark.django_db(transaction=True)
async def test_a_body_that_waits_beside_free_ones_goes_on_waiting(sent: NotingPublisher) -> None:
    with override_settings(I3TASKS=I3TasksSettings(threads=2, concurrency=10)):
        engine = make_engine()
        handle = await wait_for_another.adelay(90)
        waiting = asyncio.create_task(engine.executor.execute(delivery_of(handle.task_execution_try)))  # type: ignore[arg-type]
        async with asyncio.timeout(60):
            while not (
                inner := [row async for row in TaskExecutionTry.objects.filter(task_execution__task_name="add")]
            ):
                await asyncio.sleep(0.02)
            await engine.executor.execute(delivery_of(inner[0]))
            await waiting
        engine.pool.close()
        assert await handle.aresult(timeout=10) == 3
    assert await TaskExecution.objects.acount() == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("body", [wait_for_a_group, await_a_group, wait_for_a_retry, wait_for_itself])
async def test_a_single_body_waits_for_nothing_that_could_not_begin(body: Any, sent: NotingPublisher) -> None:
    with override_settings(I3TASKS=I3TasksSettings(threads=1, concurrency=1)):
        engine = make_engine()
        handle = await body.adelay(90)
        await engine.executor.execute(delivery_of(handle.task_execution_try))
        engine.pool.close()
    ended = await TaskExecutionTry.objects.aget(task_execution=handle.task_execution_id)
    assert ended.error_class == "i3tasks.exceptions.WouldWaitForever"


@pytest.mark.django_db(transaction=True)
async def test_a_member_does_not_wait_for_its_own_group(sent: NotingPublisher) -> None:
    await group(await_its_own_group.s(90), double.s(1)).adelay()
    engine = make_engine()
    member = await TaskExecutionTry.objects.select_related("task_execution").aget(
        task_execution__task_name="await_its_own_group"
    )
    await engine.executor.execute(delivery_of(member))
    engine.pool.close()
    ended = await TaskExecutionTry.objects.aget(pk=member.pk)
    assert ended.error_class == "i3tasks.exceptions.WouldWaitForever"


@pytest.mark.django_db(transaction=True)
def test_a_body_that_runs_in_its_callers_thread_does_not_wait_for_itself(sent: NotingPublisher) -> None:
    with pytest.raises(WouldWaitForever, match="can't end before the body that waits for it"):
        wait_for_itself.sync_run(90)


def test_a_handle_of_nothing_says_so() -> None:
    with pytest.raises(I3TasksError, match="build_chain"):
        note.build_chain("x").result()

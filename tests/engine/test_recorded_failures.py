"""What raises beneath a body, and rows that no call has written: each is that try's failure at once."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from i3tasks import PermanentError, group, task
from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.deciding import GiveUp
from i3tasks.core.outcome import Failure, Success
from i3tasks.engine.assembly import make_engine
from i3tasks.engine.report import Report, Verdict
from i3tasks.models import TaskExecution, TaskExecutionTry, TaskGroup
from i3tasks.store.expiry import expire_leases
from tests.shop.tasks import add, fail
from tests.support.rigs import delivery_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]


@task(max_retries=0)
def throw(kind: str) -> None:
    raise {"permanent": PermanentError("no"), "value": ValueError("no")}[kind]


async def execute(task_try: TaskExecutionTry) -> Report:
    engine = make_engine(concurrency=2, threads=1)
    try:
        return await engine.executor.execute(delivery_of(task_try))
    finally:
        engine.pool.close()


async def poisoned(called: Any = add, *args: Any, **columns: Any) -> TaskExecutionTry:
    task_try: TaskExecutionTry = (await called.adelay(*(args or (1, 2)))).task_execution_try
    await TaskExecution.objects.filter(pk=task_try.task_execution_id).aupdate(**columns)
    return task_try


async def failed_at_once(task_try: TaskExecutionTry, sentence: str) -> None:
    report = await execute(task_try)
    ended = await TaskExecutionTry.objects.select_related("result", "task_execution").aget(pk=task_try.pk)
    assert report.verdict is Verdict.ACK
    assert (ended.is_completed, ended.is_success, ended.lease_until) == (True, False, None)
    assert sentence in ended.result.result


ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "options a list": ({"options": [1]}, "holds a list in options"),
    "options a text": ({"options": "x"}, "holds a str in options"),
    "arguments an object": ({"task_args": {"a": 1}}, "holds a dict in task_args"),
    "arguments a number": ({"task_args": 7}, "holds a int in task_args"),
    "keywords a list": ({"task_kwargs": [1]}, "holds a list in task_kwargs"),
    "chain a text": ({"chain": "abc"}, "What follows the task can't be written"),
    "chain of numbers": ({"chain": [1]}, "What follows the task can't be written"),
    "chain without names": ({"chain": [{"args": []}]}, "What follows the task can't be written"),
    "priority a text": (
        {"chain": [{"module_name": "tests.shop.tasks", "func_name": "add", "priority": "high"}]},
        "What follows the task can't be written",
    ),
}


@pytest.mark.parametrize("name", ROWS)
async def test_a_poisoned_row_fails_with_a_sentence(name: str) -> None:
    columns, sentence = ROWS[name]
    await failed_at_once(await poisoned(**columns), sentence)


@pytest.mark.parametrize(
    "columns", [{"options": [1]}, {"chain": "abc"}, {"chain": [1]}, {"options": {"on_failure": 7}}]
)
async def test_a_poisoned_row_of_a_task_that_fails_too(columns: dict[str, Any]) -> None:
    task_try = await poisoned(throw, "permanent", **columns)
    assert (await execute(task_try)).verdict is Verdict.ACK
    assert (await TaskExecution.objects.aget()).outcome == "failed"


@pytest.mark.parametrize("name", ROWS)
def test_a_poisoned_row_whose_worker_died_is_ended(name: str) -> None:
    task_try = add.delay(1, 2).task_execution_try
    TaskExecution.objects.update(**ROWS[name][0])
    TaskExecutionTry.objects.update(
        started_at=timezone.now(), lease_until=timezone.now() - timedelta(seconds=1), dispatch_at=None
    )
    expire_leases(10, clock=SYSTEM_CLOCK)
    task_try.refresh_from_db()
    assert (task_try.is_completed, task_try.error_class) == (True, "i3tasks.exceptions.WorkerLost")


async def test_a_module_that_raises_anything_at_import() -> None:
    task_try = await poisoned(task_path="tests.shop.unimportable.interrupting")
    engine = make_engine(concurrency=2, threads=1)
    engine.executor._unregistered_for = timedelta(0)
    report = await engine.executor.execute(delivery_of(task_try))
    engine.pool.close()
    assert isinstance(report.outcome, Failure)
    assert "KeyboardInterrupt: at import" in report.outcome.error.message


async def test_a_group_whose_callback_is_poisoned_still_counts_its_members() -> None:
    created = await group(add.s(1, 2), fail.using(max_retries=0).s("no")).then(add.s(3, 4)).adelay()
    await TaskGroup.objects.filter(pk=created.pk).aupdate(callback_chain="nonsense")
    for task_try in [item async for item in TaskExecutionTry.objects.select_related("task_execution")]:
        assert (await execute(task_try)).verdict is Verdict.ACK
    assert (await TaskGroup.objects.aget()).status == TaskGroup.STATUS_FAILED


async def test_what_raises_while_the_failure_is_judged_is_the_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise KeyboardInterrupt("a class of its own")

    monkeypatch.setattr("i3tasks.engine.executor.policy_of", refuse)
    report = await execute(await poisoned(throw, "value"))
    assert isinstance(report.outcome, Failure)
    assert report.outcome.then == GiveUp(exhausted=False)
    assert "a class of its own" in report.outcome.error.message


@pytest.mark.parametrize("name", ["encode_result", "metadata_of", "decode"])
async def test_what_raises_around_the_body_is_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise SystemExit(f"from {name}")

    task_try = await poisoned(tell, 1)
    monkeypatch.setattr(f"i3tasks.engine.executor.{name}", refuse)
    await failed_at_once(task_try, f"from {name}")


@task(bind=True, max_retries=0)
def tell(value: int, task_metadata: Any = None) -> int:
    return value


async def test_the_last_failure_is_one_error_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "i3tasks")
    handle = await fail.using(max_retries=1).adelay("no")
    for number in (1, 2):
        task_try = await TaskExecutionTry.objects.aget(try_number=number)
        await TaskExecutionTry.objects.filter(pk=task_try.pk).aupdate(run_after=None)
        await execute(task_try)
    first, last = [record for record in caplog.records if "_failed'" in record.getMessage()]
    execution = f"execution_id={handle.task_execution_id} execution_uuid='{handle.task_uuid}' try_id="
    for record in (first, last):
        assert execution in record.getMessage()
    assert (first.levelname, first.exc_info) == ("WARNING", None)
    assert "event='try_failed'" in first.getMessage()
    assert "try_number=1" in first.getMessage()
    assert "next_try=2 next_try_at='2" in first.getMessage()
    assert last.levelname == "ERROR"
    assert "event='execution_failed'" in last.getMessage()
    assert last.exc_info is not None
    assert str(last.exc_info[1]) == "no"


async def test_a_success_is_still_one() -> None:
    assert (await execute(await poisoned())).outcome == Success(3)


class Untraceable(Exception):
    def with_traceback(self, traceback: Any) -> Any:
        raise RuntimeError("no traceback for you")


@task(max_retries=0)
def raise_untraceable() -> None:
    raise Untraceable("no")


@task(max_retries=0)
async def stop_in_a_lane() -> None:
    def stop() -> None:
        raise StopIteration("no")

    await sync_to_async(stop)()


@pytest.mark.parametrize(
    ("called", "error_class"),
    [(raise_untraceable, f"{__name__}.Untraceable"), (stop_in_a_lane, "RuntimeError")],
)
async def test_an_error_that_the_thread_can_not_handle_as_others(called: Any, error_class: str) -> None:
    task_try = (await called.adelay()).task_execution_try
    engine = make_engine(concurrency=2, threads=1)
    async with asyncio.timeout(30):
        await engine.executor.execute(delivery_of(task_try))
        report = await engine.executor.execute(delivery_of((await add.adelay(1, 2)).task_execution_try))
    engine.pool.close()
    assert (await TaskExecutionTry.objects.aget(pk=task_try.pk)).error_class == error_class
    assert report.outcome == Success(3), "the thread goes on"


@pytest.mark.parametrize("place", ["i3tasks.engine.connections.look", "i3tasks.engine.connections.clean"])
async def test_an_error_around_a_body_is_its_failed_try_and_the_thread_goes_on(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode() -> bool:
        raise RuntimeError("of the driver")

    engine = make_engine(concurrency=2, threads=1)
    task_try = (await add.adelay(1, 2)).task_execution_try
    with monkeypatch.context() as patched:
        patched.setattr(place, explode)
        async with asyncio.timeout(30):
            await engine.executor.execute(delivery_of(task_try))
    async with asyncio.timeout(30):
        report = await engine.executor.execute(delivery_of((await add.adelay(3, 4)).task_execution_try))
    engine.pool.close()
    failed = await TaskExecutionTry.objects.select_related("result").aget(pk=task_try.pk)
    assert (failed.error_class, failed.result.result) == ("RuntimeError", "of the driver")
    assert report.outcome == Success(7)

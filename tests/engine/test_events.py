"""What the events of an execution say, however it is run and however it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction
from django.utils import timezone

from i3tasks import Task, task
from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.engine.assembly import make_engine
from i3tasks.engine.report import Report
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store.cancel import cancel
from i3tasks.store.expiry import expire_leases
from i3tasks.store.requests import Settlement
from i3tasks.telemetry import TRY, TaskFilter, subscribe
from tests.shop import isolated
from tests.shop.tasks import aadd, add, crunch, fail
from tests.support.rigs import delivery_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

Heard = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def heard() -> Iterator[Heard]:
    found: Heard = []
    unsubscribe = subscribe(lambda event, facts: found.append((event.name, dict(facts))))
    yield found
    unsubscribe()


def names(heard: Heard) -> list[str]:
    return [name for name, _ in heard]


async def enqueued(task: Any, *args: Any) -> TaskExecutionTry:
    return (await task.adelay(*args)).task_execution_try


async def execute(task_try: TaskExecutionTry) -> Report:
    engine = make_engine(concurrency=2, threads=1)
    try:
        return await engine.executor.execute(delivery_of(task_try))
    finally:
        engine.pool.close()


def named(task_try: TaskExecutionTry, task: Task[..., Any], queue: str = "default") -> dict[str, Any]:
    return {
        "execution_id": task_try.task_execution_id,
        "execution_uuid": task_try.task_execution.uuid,
        "try_id": task_try.pk,
        "task": task.spec.path,
        "queue": queue,
        "try_number": task_try.try_number,
    }


@pytest.mark.parametrize(
    ("task", "args", "queue"), [(add, (1, 2), "default"), (aadd, (1, 2), "default"), (crunch, ([1, 2],), "heavy")]
)
async def test_a_run_is_enqueued_started_and_succeeds(
    task: Any, args: tuple[Any, ...], queue: str, heard: Heard
) -> None:
    task_try = await enqueued(task, *args)
    await TaskExecutionTry.objects.filter(pk=task_try.pk).aupdate(asked_at=timezone.now() - timedelta(seconds=40))
    await execute(task_try)
    worker = (await TaskExecutionTry.objects.aget(pk=task_try.pk)).worker_id
    assert names(heard) == ["execution_enqueued", "try_started", "try_succeeded"]
    assert heard[0][1] == named(task_try, task, queue)
    for _, facts in heard[1:]:
        assert {name: facts[name] for name in TRY} == {**named(task_try, task, queue), "worker": worker}
        assert 40 <= facts["queue_time"] < 100
    assert 0 <= heard[2][1]["duration"] < 30
    assert set(heard[2][1]) == {*TRY, "duration", "queue_time"}


async def test_a_delay_that_was_asked_for_is_no_wait(heard: Heard) -> None:
    task_try = await enqueued(add.using(run_after=timedelta(hours=1)), 1, 2)
    assert heard[0][1]["due_at"] == task_try.run_after
    now = timezone.now()
    await TaskExecutionTry.objects.filter(pk=task_try.pk).aupdate(asked_at=now - timedelta(hours=1), run_after=now)
    await execute(task_try)
    assert heard[-1][0] == "try_succeeded"
    assert heard[-1][1]["queue_time"] < 60


async def test_a_failed_try_names_the_next_one_and_the_last_one_fails_the_execution(heard: Heard) -> None:
    first = await enqueued(fail, "broken")
    await execute(first)
    second = await TaskExecutionTry.objects.select_related("task_execution").aget(try_number=2)
    await TaskExecutionTry.objects.filter(pk=second.pk).aupdate(run_after=None)
    await execute(second)
    assert names(heard) == ["execution_enqueued", "try_started", "try_failed", "try_started", "execution_failed"]
    error = {"error_class": "ValueError", "error": "broken"}
    tried, failed = heard[2][1], heard[4][1]
    assert named(first, fail).items() | error.items() | {"next_try": 2}.items() <= tried.items()
    assert tried["next_try_at"] == second.run_after
    assert named(second, fail).items() | error.items() <= failed.items()
    assert isinstance(failed["exc_info"], ValueError)
    assert {"duration", "queue_time", "worker"} <= set(tried) & set(failed)


async def test_an_execution_that_is_cancelled_before_it_ran_is_an_event_once_that_is_committed(heard: Heard) -> None:
    task_try = await enqueued(add, 1, 2)

    def cancel_it() -> list[str]:
        with transaction.atomic():
            cancel([task_try.task_execution_id])
            return names(heard)

    assert await sync_to_async(cancel_it)() == ["execution_enqueued"]
    assert names(heard) == ["execution_enqueued", "execution_cancelled"]
    error = {"error_class": "i3tasks.exceptions.TaskCancelled", "error": heard[1][1]["error"]}
    assert heard[1][1] == named(task_try, add) | error


async def test_a_body_that_fails_while_its_cancellation_is_asked_for_ends_its_execution_as_cancelled(
    heard: Heard,
) -> None:
    task_try = await enqueued(fail)
    engine = make_engine(concurrency=2, threads=1)
    ask = engine.executor._store.ask

    class Store:
        async def ask(self, operation: Any, request: Any, *rest: Any) -> Any:
            if isinstance(request, Settlement):
                await TaskExecution.objects.filter(pk=task_try.task_execution_id).aupdate(
                    cancel_requested_at=timezone.now()
                )
            return await ask(operation, request, *rest)

    engine.executor._store = Store()
    try:
        await engine.executor.execute(delivery_of(task_try))
    finally:
        engine.pool.close()
    assert names(heard)[2:] == ["execution_cancelled"]
    assert heard[-1][1]["error"] == "no"


async def test_a_lost_try_says_whose_it_was(heard: Heard) -> None:
    task_try = await enqueued(add, 1, 2)
    now = timezone.now()
    await TaskExecutionTry.objects.filter(pk=task_try.pk).aupdate(
        asked_at=now - timedelta(seconds=90),
        started_at=now - timedelta(seconds=60),
        lease_until=now - timedelta(seconds=30),
        worker_id="gone:1",
        dispatch_at=None,
        claim_token="00000000-0000-0000-0000-000000000001",
    )
    await sync_to_async(expire_leases)(10, clock=SYSTEM_CLOCK)
    assert names(heard) == ["execution_enqueued", "tries_lost", "try_failed"]
    facts = heard[2][1]
    assert {**named(task_try, add), "worker": "gone:1"}.items() <= facts.items()
    assert facts["error_class"] == "i3tasks.exceptions.WorkerLost"
    assert facts["queue_time"] == pytest.approx(30, abs=0.01)
    assert facts["duration"] >= 60


async def test_a_message_of_a_try_that_is_over_is_refused_by_name(heard: Heard) -> None:
    task_try = await enqueued(add, 1, 2)
    await execute(task_try)
    await execute(task_try)
    name, facts = heard[-1]
    assert (name, facts["reason"], facts["try_id"], facts["task"]) == (
        "try_refused", "completed", task_try.pk, add.spec.path,
    )  # fmt: skip
    assert facts["execution_id"] == task_try.task_execution_id
    assert facts["worker"]


def logged() -> dict[str, Any]:
    """What the filter gives a record that is logged here, as JSON can hold it."""
    record = logging.makeLogRecord({})
    TaskFilter().filter(record)
    return {name: str(getattr(record, name)) for name in TRY}


@task
def logs() -> dict[str, Any]:
    return logged()


@task
async def alogs() -> dict[str, Any]:
    async with asyncio.TaskGroup() as tasks:
        within = tasks.create_task(sync_to_async(logged)())
    return await within


@pytest.mark.parametrize("called", [logs, alogs, isolated.logs])
async def test_what_a_body_logs_carries_its_try_wherever_the_body_runs(called: Any) -> None:
    task_try = await enqueued(called)
    await execute(task_try)
    ended = await TaskExecutionTry.objects.select_related("result").aget(pk=task_try.pk)
    expected = {**named(task_try, called), "worker": ended.worker_id}
    assert ended.result.result == {name: str(expected[name]) for name in TRY}
    assert logged() == dict.fromkeys(TRY, "None"), "outside of a body"


@pytest.mark.parametrize("called", [logs, alogs])
def test_what_a_body_logs_inline_carries_its_try(called: Any) -> None:
    ended = called.sync_run()
    expected = {**named(ended, called), "worker": "inline"}
    assert ended.result.result == {name: str(expected[name]) for name in TRY}
    assert logged() == dict.fromkeys(TRY, "None"), "the caller's own lines are none of the task's"


def test_inline_runs_tell_the_same(heard: Heard) -> None:
    add.sync_run(1, 2)
    assert names(heard) == ["execution_enqueued", "try_started", "try_succeeded"]
    assert heard[2][1]["worker"] == "inline"

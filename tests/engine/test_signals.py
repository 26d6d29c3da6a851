"""Signals reach their receivers, whatever they do, and no receiver reaches the work."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from i3tasks import signals
from i3tasks.engine.assembly import make_engine
from i3tasks.models import TaskExecutionTry
from i3tasks.signals import flush, task_enqueued, task_finished, task_started, try_failed
from i3tasks.store.cancel import cancel
from i3tasks.telemetry import wanted
from tests.shop import isolated
from tests.shop.tasks import aadd, add, fail
from tests.support.rigs import delivery_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent", "without_django_tasks")]

NAMES = {"enqueued": task_enqueued, "started": task_started, "failed": try_failed, "finished": task_finished}
Calls = list[tuple[str, Any, dict[str, Any]]]


@contextmanager
def connected(signal: Any, receiver: Any, **options: Any) -> Iterator[None]:
    signal.connect(receiver, **options)
    try:
        yield
    finally:
        flush(30)
        signal.disconnect(receiver, **options)


@pytest.fixture
def calls() -> Iterator[Calls]:
    """What receivers of all signals were called with."""
    found: Calls = []

    def noting(name: str) -> Any:
        def note(sender: Any, signal: Any, **arguments: Any) -> None:
            found.append((name, sender, arguments))

        return note

    receivers = {name: noting(name) for name in NAMES}
    for name, receiver in receivers.items():
        NAMES[name].connect(receiver)
    yield found
    flush(30)
    for name, receiver in receivers.items():
        NAMES[name].disconnect(receiver)


async def execute(task_try: TaskExecutionTry) -> None:
    engine = make_engine(concurrency=2, threads=1)
    try:
        await engine.executor.execute(delivery_of(task_try))
    finally:
        engine.pool.close()
    assert await sync_to_async(flush, thread_sensitive=False)(30)


async def run(called: Any, *args: Any) -> TaskExecutionTry:
    task_try: TaskExecutionTry = (await called.adelay(*args)).task_execution_try
    await execute(task_try)
    return await TaskExecutionTry.objects.select_related("task_execution").aget(pk=task_try.pk)


@pytest.mark.parametrize("called", [add, aadd, isolated.logs], ids=["sync", "async", "process"])
async def test_a_success_is_enqueued_started_and_finished(called: Any, calls: Calls) -> None:
    ended = await run(called, *([1, 2] if called is not isolated.logs else []))
    execution = {"execution_id": ended.task_execution_id, "execution_uuid": ended.task_execution.uuid}
    execution |= {"task": called.spec.path, "queue": "default"}
    of_try = execution | {"try_id": ended.pk, "try_number": 1, "worker": ended.worker_id}
    assert [(name, sender) for name, sender, _ in calls] == [
        ("enqueued", called), ("started", called), ("finished", called),
    ]  # fmt: skip
    assert calls[0][2] == {**execution, "run_after": None}
    assert calls[1][2].items() >= of_try.items()
    assert calls[2][2].items() >= {**of_try, "outcome": "success", "error_class": None, "exception": None}.items()
    assert calls[2][2]["duration"] >= 0 <= calls[1][2]["queue_time"]
    for name, _, arguments in calls:
        assert set(arguments) == set(NAMES[name].arguments)


async def test_each_failed_try_is_told_and_the_last_one_finishes(calls: Calls) -> None:
    first = await run(fail, "broken")
    second = await TaskExecutionTry.objects.aget(try_number=2)
    run_after = second.run_after
    await TaskExecutionTry.objects.filter(pk=second.pk).aupdate(run_after=None)
    await execute(await TaskExecutionTry.objects.select_related("task_execution").aget(pk=second.pk))
    assert [name for name, *_ in calls] == ["enqueued", "started", "failed", "started", "failed", "finished"]
    failed, last, finished = calls[2][2], calls[4][2], calls[5][2]
    error = {"error_class": "ValueError", "error": "broken"}
    assert failed.items() >= {**error, "try_id": first.pk, "next_try": 2, "next_try_at": run_after}.items()
    assert last.items() >= {**error, "try_number": 2, "next_try": None, "next_try_at": None}.items()
    assert finished.items() >= {**error, "outcome": "failed"}.items()
    assert isinstance(failed["exception"], ValueError)
    assert isinstance(finished["exception"], ValueError)


async def test_what_is_rolled_back_is_not_told_and_what_is_deferred_is(calls: Calls) -> None:
    def write() -> None:
        with transaction.atomic():
            add.delay(1, 2)
            transaction.set_rollback(True)
        with transaction.atomic():
            add.using(run_after=timedelta(hours=1)).delay(1, 2)
            assert not calls

    await sync_to_async(write)()
    assert flush(30)
    deferred = await TaskExecutionTry.objects.aget()
    assert [(name, arguments["run_after"]) for name, _, arguments in calls] == [("enqueued", deferred.run_after)]


async def test_an_execution_that_is_cancelled_before_it_ran_is_finished(calls: Calls) -> None:
    task_try = (await add.adelay(1, 2)).task_execution_try
    await sync_to_async(cancel)([task_try.task_execution_id])
    assert flush(30)
    assert [name for name, *_ in calls] == ["enqueued", "finished"]
    assert calls[1][2].items() >= {"outcome": "cancelled", "worker": None, "duration": None}.items()


def test_inline_runs_call_receivers_in_the_callers_thread_before_they_return(calls: Calls) -> None:
    threads: list[threading.Thread] = []

    def note(**_: Any) -> None:
        threads.append(threading.current_thread())

    with connected(task_finished, note), transaction.atomic():
        add.sync_run(1, 2)
        assert threads == [threading.current_thread()]
    assert flush(30)
    assert sorted(name for name, *_ in calls) == ["enqueued", "finished", "started"]


def test_a_receiver_may_name_its_task() -> None:
    told: list[str] = []

    def note(sender: Any, task: str, **_: Any) -> None:
        told.append(task)

    with connected(task_finished, note, sender=add):
        add.sync_run(1, 2)
        aadd.sync_run(1, 2)
    assert told == [add.spec.path]


async def test_coroutine_receivers_are_awaited_and_may_use_the_orm() -> None:
    found: list[int] = []

    async def count(**_: Any) -> None:
        await asyncio.sleep(0)
        found.append(await TaskExecutionTry.objects.filter(is_success=True).acount())

    with connected(task_finished, count):
        await run(add, 1, 2)
        await sync_to_async(add.sync_run)(3, 4)
    assert found == [1, 2]


async def test_a_receiver_that_raises_or_hangs_harms_neither_the_work_nor_the_other_receivers(
    calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()

    def hang(**_: Any) -> None:
        gate.wait(30)

    async def explode(**_: Any) -> None:
        raise ZeroDivisionError("of the receiver")

    with connected(task_started, hang), connected(task_started, explode):
        task_try = (await add.adelay(1, 2)).task_execution_try
        engine = make_engine(concurrency=2, threads=1)
        try:
            await engine.executor.execute(delivery_of(task_try))
        finally:
            engine.pool.close()
        ended = await TaskExecutionTry.objects.aget(pk=task_try.pk)
        assert ended.is_success, "while the receiver hangs"
        gate.set()
        assert flush(30)
    assert [name for name, *_ in calls] == ["enqueued", "started", "finished"]
    [failure] = [record for record in caplog.records if "consumer_failed" in record.getMessage()]
    assert "explode" in failure.consumer  # type: ignore[attr-defined]
    assert "of the receiver" in failure.error  # type: ignore[attr-defined]


def test_what_receivers_are_too_slow_for_is_dropped_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(signals._thread, "put", lambda message: False)

    def note(**_: Any) -> None:
        raise AssertionError

    with connected(task_enqueued, note):
        add.delay(1, 2)
        add.delay(1, 2)
    assert [record.dropped for record in caplog.records] == [1]  # type: ignore[attr-defined]


def test_without_receivers_nothing_listens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "i3tasks")
    assert not wanted("try_started")
    with connected(task_started, print):
        assert wanted("try_started")
    assert not wanted("try_started")

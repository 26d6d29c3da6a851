"""`isolation="process"`: through a worker's pool, in real child processes."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from django.test import override_settings

from i3tasks import ChainHandle
from i3tasks.broker.deliveries import Delivery
from i3tasks.broker.publisher import withholding
from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.envelope import Envelope
from i3tasks.engine.assembly import Engine, make_engine
from i3tasks.exceptions import LeaseLost, TaskCancelled
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.types import I3TasksSettings
from tests.shop.isolated import (
    TOGETHER,
    Kind,
    clean_up,
    decline,
    die,
    echo,
    give_what_json_lacks,
    raise_together,
    refuse,
    set_language,
    spin,
    stay_at_home,
    take_signals,
    talk,
    where,
)
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def child_on_the_test_database(monkeypatch: pytest.MonkeyPatch):
    from tests.support.databases import child_environment

    for name, value in child_environment().items():
        monkeypatch.setenv(name, value)
    with override_settings(I3TASKS=I3TasksSettings(task_retry_backoff_base_seconds=0)), withholding():
        yield  # `run` carries the messages: publishing to a broker that is not there would delay later tests


async def run(engine, handle) -> TaskExecutionTry:
    """Carry out the message of the execution's latest try."""
    execution = handle.task_execution
    task_try = await TaskExecutionTry.objects.filter(task_execution=execution.pk).order_by("-try_number").afirst()
    envelope = Envelope(execution.pk, task_try.pk, execution.task_path, execution.task_name)
    await engine.executor.execute(Delivery(envelope.to_bytes(), {}, "1", SYSTEM_CLOCK.now(), None, ""))
    return await TaskExecutionTry.objects.select_related("result").aget(pk=task_try.pk)


async def test_a_body_runs_in_a_warm_process_with_django_and_its_metadata() -> None:
    engine = make_engine()
    first = await run(engine, await where.adelay("a"))
    second = await run(engine, await where.adelay("b"))
    assert first.result.result["pid"] not in (os.getpid(), None)
    assert first.result.result["try_number"] == 1
    assert second.result.result["pid"] == first.result.result["pid"], "the process is reused"
    assert await Order.objects.acount() == 2


async def test_values_arrive_as_themselves_and_text_is_marked() -> None:
    engine = make_engine()
    values = ((1, 2), {3}, b"4", Kind.FIRST, {"__i3tasks__": "result", "value": None})
    handle = await echo.adelay(*values)
    await run(engine, handle)
    assert await handle.aresult() == values  # PostgreSQL sorts the keys of dicts
    kept = await run(engine, await echo.adelay(1, as_text=True))
    assert (kept.result.text_of, kept.result.result) == ("dict", "{1: (1,)}")


async def test_an_error_keeps_its_class_text_and_traceback() -> None:
    task_try = await run(make_engine(), await decline.adelay())
    assert task_try.error_class == "tests.shop.isolated.CardDeclined"
    assert task_try.result.result == "no money"
    assert "raise CardDeclined(7" in task_try.error_traceback


async def test_a_body_that_kills_its_process_is_a_failed_try_and_nothing_else() -> None:
    engine = make_engine()
    handle = await die.adelay()
    for expected in ("WorkerLost", "WorkerLost"):
        task_try = await run(engine, handle)
        assert task_try.error_class == f"i3tasks.exceptions.{expected}"
    execution = await TaskExecution.objects.aget(pk=handle.task_execution_id)
    assert execution.outcome == "failed"


async def test_a_timeout_kills_the_process() -> None:
    engine = make_engine()
    task_try = await run(engine, await spin.adelay())
    assert task_try.error_class == "i3tasks.exceptions.TaskTimeout"
    after = await run(engine, await where.adelay("after"))
    assert after.is_success, "the slot is free again"


@asynccontextmanager
async def begun(name: str, *, end: str, grace: float = 60) -> AsyncIterator[tuple[Engine, ChainHandle[str], Any]]:
    """The engine, call and run of a body that waits to be told to end. `grace` is more than it needs."""
    with override_settings(
        I3TASKS=I3TasksSettings(process_grace_seconds=grace, heartbeat_seconds=0.1, default_max_retries=0)
    ):
        engine = make_engine()
        handle = await clean_up.adelay(name, end=end)
        running = asyncio.create_task(run(engine, handle))
        while not await Order.objects.filter(name=name).aexists():
            assert not running.done()
            await asyncio.sleep(0.02)
        yield engine, handle, running


async def noted(name: str) -> list[str]:
    """What the body was told, if it cleaned up."""
    return [order.name.partition(": ")[2] async for order in Order.objects.filter(name__startswith=name, total=1)]


async def test_a_cancellation_is_raised_in_the_process_which_may_clean_up() -> None:
    async with begun("order", end="raise") as (_, handle, running):
        await handle.acancel()
        task_try = await running
        assert task_try.error_class == "i3tasks.exceptions.TaskCancelled"
        [text] = await noted("order")
        assert text.startswith("The execution was cancelled.")
        assert (await TaskExecution.objects.aget(pk=handle.task_execution_id)).outcome == "cancelled"


async def test_a_timeout_is_raised_in_the_process_too() -> None:
    with override_settings(I3TASKS=I3TasksSettings(process_grace_seconds=60)):
        engine = make_engine()
        for timeout in (0.5, 2, 8, 32):  # a slow machine may need more to begin
            task_try = await run(engine, await clean_up.using(timeout=timeout).adelay("slow", end="raise"))
            assert task_try.error_class == "i3tasks.exceptions.TaskTimeout"
            if await noted("slow"):
                break
        assert await noted("slow") == [f"The body ran longer than its timeout of {timeout:g} seconds."]
        assert "time.sleep(60)" in task_try.error_traceback, "where it was"


async def test_a_body_that_returns_within_its_grace_has_succeeded() -> None:
    async with begun("order", end="return") as (engine, _, running):
        engine.running.stop_all(LeaseLost())
        task_try = await running
        assert (task_try.is_success, task_try.result.result) == (True, "done after all")
        assert not engine.pool._processes._all, "it was interrupted anywhere, and serves no other body"


@pytest.mark.parametrize("grace", [0.5, 0])
async def test_a_process_that_goes_on_after_its_grace_is_killed(grace: float) -> None:
    async with begun("order", end="stay", grace=grace) as (engine, _, running):
        engine.running.stop_all(TaskCancelled())
        assert (await running).error_class == "i3tasks.exceptions.TaskCancelled"
        assert not engine.pool._processes._all
        if not grace:
            assert not await noted("order")


async def test_an_error_that_does_not_travel_is_still_of_its_class() -> None:
    engine = make_engine()
    handle = await refuse.adelay()
    task_try = await run(engine, handle)
    assert task_try.error_class == "tests.shop.isolated.Refused"
    execution = await TaskExecution.objects.aget(pk=handle.task_execution_id)
    assert execution.outcome == "failed", "a PermanentError is not tried again"
    task_try = await run(engine, await stay_at_home.adelay())
    assert (task_try.error_class, task_try.result.result) == ("tests.shop.isolated.Homebody", "here")


async def test_a_process_does_to_bodies_what_a_thread_does(capfd: pytest.CaptureFixture[str]) -> None:
    """One test for all, as starting a process takes its time."""
    engine = make_engine()
    handle = await give_what_json_lacks.adelay()
    await run(engine, handle)
    assert await handle.aresult(timeout=5) == give_what_json_lacks.spec.function()
    contexts = [(await run(engine, await set_language.adelay())).result.result for _ in range(2)]
    assert contexts == ["none", "none"], "no body inherits the context of the one before it"
    for _ in range(2):
        task_try = await run(engine, await talk.adelay())
        assert task_try.result.result == ["", "EOFError: EOF when reading a line"], (
            "the worker's pipe is not the body's"
        )
        printed = capfd.readouterr()
        assert printed.out == "hello\n" + "hello" * 100_000 + "hello\n", "what a program of the body's prints, too"
        assert printed.err == "hello" * 100_000
    task_try = await run(engine, await take_signals.adelay())
    assert task_try.result.result == [1], "whether to end is the worker's business"


async def test_what_is_final_stays_so_in_a_process_whatever_is_beside_it() -> None:
    engine = make_engine()
    classes = {}
    for name in TOGETHER:
        handle = await raise_together.adelay(name)
        classes[name] = (await run(engine, handle)).error_class.rpartition(".")[2]
        execution = await TaskExecution.objects.aget(pk=handle.task_execution_id)
        assert execution.outcome == "failed", f"{name}: tried again"
    assert list(classes.values()) == ["Frozen", "ExceptionGroup", "ExceptionGroup", "Paired"]

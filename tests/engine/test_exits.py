"""SystemExit and KeyboardInterrupt in what a body begins: that body's failed try, and no other's."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from i3tasks import task
from i3tasks.core.outcome import Failure, Success
from i3tasks.engine.assembly import make_engine
from i3tasks.engine.exits import Loop
from i3tasks.engine.push import carry_out
from i3tasks.exceptions import TaskFailed
from i3tasks.testing import adrain
from i3tasks.types import PushQueue
from tests.shop.tasks import nap
from tests.support.rigs import delivery_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

KINDS = {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}


async def leave(kind: str) -> None:
    await asyncio.sleep(0)
    raise KINDS[kind](3)


async def _gather(kind: str) -> None:
    await asyncio.gather(asyncio.sleep(60), leave(kind))


async def _task_group(kind: str) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(60))
        group.create_task(leave(kind))


async def _unawaited(kind: str) -> None:
    child = asyncio.create_task(leave(kind))
    await asyncio.sleep(60)
    await child


async def _grandchild(kind: str) -> None:
    await asyncio.gather(_gather(kind), asyncio.sleep(60))


async def _callback(kind: str) -> None:
    def quit() -> None:
        raise KINDS[kind](3)

    asyncio.get_running_loop().call_soon(quit)
    await asyncio.sleep(60)


async def _timer(kind: str) -> None:
    def quit() -> None:
        raise KINDS[kind](3)

    asyncio.get_running_loop().call_later(0.01, quit)
    await asyncio.sleep(60)


async def _done_callback(kind: str) -> None:
    def quit(_: Any) -> None:
        raise KINDS[kind](3)

    asyncio.ensure_future(asyncio.sleep(0)).add_done_callback(quit)
    await asyncio.sleep(60)


async def _thread(kind: str) -> None:
    def quit() -> None:
        raise KINDS[kind](3)

    await asyncio.get_running_loop().run_in_executor(None, quit)


async def _orm_thread(kind: str) -> None:
    def quit() -> None:
        raise KINDS[kind](3)

    await asyncio.gather(sync_to_async(quit)(), asyncio.sleep(60))


async def _wait_for(kind: str) -> None:
    await asyncio.wait_for(leave(kind), 60)


async def _named_callback(kind: str) -> None:
    def quit() -> None:
        raise KINDS[kind](3)

    asyncio.get_running_loop().call_later(delay=0.01, callback=quit)
    await asyncio.sleep(60)


async def _reader(kind: str) -> None:
    def quit() -> None:
        raise KINDS[kind](3)

    with readable() as (reading, _):
        asyncio.get_running_loop().add_reader(reading.fileno(), quit)
        try:
            await asyncio.sleep(60)
        finally:
            asyncio.get_running_loop().remove_reader(reading.fileno())


async def _protocol(kind: str) -> None:
    class Quitting(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            raise KINDS[kind](3)

    with readable() as (reading, _):
        transport, _ = await asyncio.get_running_loop().create_connection(Quitting, sock=reading)
        try:
            await asyncio.sleep(60)
        finally:
            transport.abort()


async def _loop_of_a_thread(kind: str) -> None:
    """The function that a thread runs has this loop run a coroutine."""

    def back() -> None:
        async_to_sync(_gather)(kind)

    await sync_to_async(back)()


@contextmanager
def readable() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a socket, of which the first has something to read."""
    reading, writing = socket.socketpair()
    with reading, writing:
        reading.setblocking(False)
        writing.send(b"x")
        yield reading, writing


WAYS: dict[str, Any] = {
    way.__name__: way
    for way in (
        _gather,
        _task_group,
        _unawaited,
        _grandchild,
        _callback,
        _timer,
        _done_callback,
        _thread,
        _orm_thread,
        _wait_for,
        _named_callback,
        _reader,
        _protocol,
        _loop_of_a_thread,
    )
}


@task(max_retries=0)
async def exit_by(way: str, kind: str) -> None:
    await WAYS[way](kind)


@task(max_retries=0)
async def drop_a_generator() -> str:
    async def closing() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            sys.exit(3)

    generator = closing()
    await anext(generator)
    del generator
    gc.collect()
    await asyncio.sleep(0.05)
    return "never mind"


async def beside_a_neighbour(execute: Any, way: str, kind: str) -> None:
    neighbour, exiting = await nap.adelay(0.2), await exit_by.adelay(way, kind)
    ended, failed = await asyncio.wait_for(
        asyncio.gather(
            execute(delivery_of(neighbour.task_execution_try)), execute(delivery_of(exiting.task_execution_try))
        ),
        30,
    )
    assert ended.outcome == Success(0.2)
    assert isinstance(failed.outcome, Failure)
    assert failed.outcome.error.error_class == kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
async def test_an_exit_is_that_bodys_failed_try(way: str, kind: str) -> None:
    engine = make_engine(concurrency=5, threads=1)
    try:
        await beside_a_neighbour(engine.executor.execute, way, kind)
    finally:
        engine.pool.close()


@pytest.mark.parametrize("way", WAYS)
async def test_a_push_survives_it_too(way: str, settings: Any) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, default_queue=PushQueue("default", "web", "http://127.0.0.1/push/"))
    await beside_a_neighbour(lambda delivery: carry_out(delivery, None), way, "SystemExit")


@pytest.mark.parametrize("way", WAYS)
async def test_arun_survives_it_too(way: str) -> None:
    with pytest.raises(SystemExit):
        await exit_by.arun(way, "SystemExit")


@pytest.mark.parametrize("way", WAYS)
def test_sync_run_survives_it_too(way: str) -> None:
    with pytest.raises(SystemExit):
        exit_by.sync_run(way, "SystemExit")


@task(max_retries=0)
def exit_in_its_callers_loop() -> None:
    async_to_sync(_gather)("SystemExit")


@task(max_retries=0)
async def stop_the_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(60)


async def test_a_sync_body_that_uses_its_callers_loop_ends_nothing_but_its_try() -> None:
    await exit_in_its_callers_loop.adelay()
    [task_try] = await adrain()
    assert task_try.error_class == "SystemExit"
    with pytest.raises(SystemExit):
        await exit_in_its_callers_loop.arun()


@pytest.mark.parametrize("way", ["worker", "drain"])
async def test_a_body_can_not_stop_the_loop_that_it_shares(way: str) -> None:
    handle = await stop_the_loop.adelay()
    if way == "drain":
        await adrain()
    else:
        engine = make_engine(concurrency=5, threads=1)
        await engine.executor.execute(delivery_of(handle.task_execution_try))
        engine.pool.close()
    with pytest.raises(TaskFailed, match=r"called stop\(\) of the event loop"):
        await handle.aresult(timeout=10)


async def test_an_exit_in_a_dropped_generator_ends_no_run() -> None:
    handle = await drop_a_generator.adelay()
    engine = make_engine(concurrency=5, threads=1)
    report = await engine.executor.execute(delivery_of(handle.task_execution_try))
    engine.pool.close()
    assert isinstance(report.outcome, (Success, Failure))


def test_the_loop_of_a_worker_goes_on_after_an_exit_of_unknown_origin() -> None:
    def quit() -> None:
        sys.exit(3)

    async def main() -> str:
        asyncio.get_running_loop().call_soon(quit)
        await asyncio.sleep(0.01)
        return "still here"

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(main()) == "still here"


def test_the_loop_ends_when_it_is_stopped_in_the_turn_of_an_exit() -> None:
    loop = Loop()

    def quit() -> None:
        sys.exit(3)

    loop.call_soon(loop.stop)
    loop.call_soon(quit)
    loop.run_forever()
    loop.close()

"""The stack of a running body: of a thread, of a coroutine, of a child process; where it is, and never its values."""

from __future__ import annotations

import asyncio
import os
import runpy
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from i3tasks import task
from i3tasks.engine.processes import ChildProcesses
from i3tasks.engine.stacks import MOST_FRAMES, stack_of_dump, stack_of_task, stack_of_thread
from i3tasks.exceptions import StoreUnavailable
from i3tasks.models import StackRequest, TaskExecutionTry
from i3tasks.store.leases import renew
from i3tasks.store.stacks import LONGEST_TEXT, TakenStack, ask, note_stacks, request_of, why_not
from tests.shop.isolated import isolated, wait_in_thread
from tests.store.helpers import enqueue, lease, open_transaction
from tests.support.history import ago
from tests.support.rigs import afinished, working

PASSWORD = "a value that no stack may show"


def waits_here(secret: str, begun: threading.Event, end: threading.Event) -> None:
    begun.set()
    end.wait(30)


def test_of_a_thread() -> None:
    begun, end = threading.Event(), threading.Event()
    thread = threading.Thread(target=waits_here, args=(PASSWORD, begun, end))
    thread.start()
    begun.wait(30)

    text = stack_of_thread(thread.ident)
    end.set()
    thread.join()

    assert "in waits_here\n    end.wait(30)\n" in text
    assert text.index("in waits_here") < text.index("in wait\n"), "the innermost last"
    assert PASSWORD not in text
    assert stack_of_thread(None) == ""


def test_of_a_coroutine_that_awaits_and_of_the_tasks_that_it_awaits() -> None:
    async def inner(secret: str) -> None:
        await asyncio.Event().wait()

    async def outer(secret: str) -> None:
        await asyncio.gather(inner(secret), inner(secret))

    async def main() -> str:
        task = asyncio.create_task(outer(PASSWORD))
        for _ in range(3):
            await asyncio.sleep(0)
        text = stack_of_task(task, threading.get_ident())
        task.cancel()
        return text

    text = asyncio.run(main())

    assert text.startswith('  File "')
    assert "in outer\n    await asyncio.gather" in text
    assert "Task 1 of 2 that it awaits:" in text
    assert text.count("in inner\n    await asyncio.Event().wait()") == 2
    assert PASSWORD not in text


def test_of_a_coroutine_that_blocks_its_loop() -> None:
    taken: list[str] = []
    begun, end = threading.Event(), threading.Event()

    async def blocks() -> None:
        waits_here(PASSWORD, begun, end)

    async def main() -> None:
        task = asyncio.create_task(blocks())
        loop_thread = threading.get_ident()

        def look() -> None:
            begun.wait(30)
            taken.append(stack_of_task(task, loop_thread))
            end.set()

        looker = threading.Thread(target=look)
        looker.start()
        await task
        looker.join()

    asyncio.run(main())

    assert "in blocks\n    waits_here(" in taken[0]
    assert "in waits_here\n    end.wait(30)\n" in taken[0]


SCRIPT = """
import os, time
def sleeps_until(path):
    while not os.path.exists(path):
        time.sleep(0.02)
sleeps_until({path!r})
"""


def test_of_a_child_process(tmp_path: Any) -> None:
    end, script = tmp_path / "end", tmp_path / "script.py"
    script.write_text(SCRIPT.format(path=str(end)))

    async def main() -> str:
        processes = ChildProcesses(1)
        dumps: list[Any] = []
        work = asyncio.create_task(processes.call(runpy.run_path, str(script), begun=dumps.append))
        dump, limit = "", time.monotonic() + 60
        while "sleeps_until" not in dump and time.monotonic() < limit and not work.done():
            await asyncio.sleep(0.05)
            dump = await asyncio.to_thread(dumps[0]) if dumps else ""
        end.touch()
        with suppress(Exception):  # what it gives, functions among it, can't be pickled
            await work
        assert await processes.call(os.path.basename, "a/b") == "b", "it lives on"
        processes.close()
        return dump

    text = stack_of_dump(asyncio.run(main()))

    assert "in sleeps_until\n" in text
    assert "time.sleep(0.02)" in text or "os.path.exists(path)" in text


def test_a_deep_stack_keeps_its_innermost_frames() -> None:
    def deep(left: int) -> str:
        return deep(left - 1) if left else stack_of_thread(threading.get_ident())

    text = deep(3 * MOST_FRAMES)

    assert "more frames\n" in text
    assert text.count('  File "') <= MOST_FRAMES
    assert "in deep\n    return deep(left - 1) if left else stack_of_thread" in text


class Beat:
    """A heartbeat of these leases."""

    lease_seconds = 30.0

    def __init__(self, task_try: TaskExecutionTry, token: Any) -> None:
        self.leases = {task_try.pk: token}


@pytest.mark.django_db
def test_a_heartbeat_hears_of_it_until_it_has_come() -> None:
    asked, other = enqueue(2)
    tokens = {one.pk: lease(one)[0].token for one in (asked, other)}
    beats = [Beat(one, tokens[one.pk]) for one in (asked, other)]
    assert [answer.stacks for answer in renew(beats)] == [frozenset(), frozenset()]  # type: ignore[union-attr]

    ask(asked.pk, by="ann", now=ago(seconds=1))
    assert [answer.stacks for answer in renew(beats)] == [{asked.pk}, frozenset()]  # type: ignore[union-attr]
    note_stacks([TakenStack(asked.pk, "x" * LONGEST_TEXT + "here"), TakenStack(other.pk, "not asked for")])

    assert [answer.stacks for answer in renew(beats)] == [frozenset(), frozenset()]  # type: ignore[union-attr]
    found = StackRequest.objects.get()
    assert (found.pk, found.asked_by, len(found.stack), found.stack[-4:]) == (asked.pk, "ann", LONGEST_TEXT, "here")
    ask(asked.pk, by="bob", now=ago(seconds=0))
    assert StackRequest.objects.get().stack == "", "asked for again"


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_row_that_another_transaction_holds_keeps_no_writer_waiting() -> None:
    [task_try] = enqueue(1)
    beat = Beat(task_try, lease(task_try)[0].token)
    ask(task_try.pk, by="ann", now=ago(seconds=1))

    with open_transaction("SELECT 1 FROM i3tasks_stackrequest FOR UPDATE"):
        note_stacks([TakenStack(task_try.pk, "here")])
        with pytest.raises(StoreUnavailable, match="not asked for"):
            ask(task_try.pk, by="bob", now=ago(seconds=0))
        assert [answer.stacks for answer in renew([beat])] == [{task_try.pk}], "it is asked again"  # type: ignore[union-attr]

    note_stacks([TakenStack(task_try.pk, "here")])
    assert StackRequest.objects.get().stack == "here"


@pytest.mark.django_db
def test_it_says_why_none_comes() -> None:
    [task_try] = enqueue(1)
    lease(task_try)
    task_try.refresh_from_db()
    now = ago(seconds=0)

    def said(asked: timedelta = timedelta(seconds=1)) -> str:
        ask(task_try.pk, by="", now=now - asked)
        found = request_of(task_try)
        assert found is not None
        return why_not(found, task_try, now)

    assert "next heartbeat, within 10 s" in said()
    assert "of an older release" in said(timedelta(minutes=5))
    task_try.lease_until = now - timedelta(seconds=1)
    assert "the worker is gone" in said()
    task_try.is_completed, task_try.finished_at = True, now
    assert "has ended before" in said()
    note_stacks([TakenStack(task_try.pk, "")])
    found = request_of(task_try)
    assert found is not None
    assert "could not tell" in why_not(found, task_try, now)


async def wait_in_loop(path: str) -> None:
    while not os.path.exists(path):
        await asyncio.sleep(0.02)


@task(max_retries=0)
def threaded(path: str) -> None:
    wait_in_thread(path)


@task(max_retries=0)
async def looped(path: str) -> None:
    await wait_in_loop(path)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("on_embedded")
async def test_a_worker_tells_where_each_kind_of_body_is(settings: Any, tmp_path: Any) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, lease_seconds=30, heartbeat_seconds=0.3)
    end = tmp_path / "end"
    try:
        async with working():
            for one in (threaded, looped, isolated):
                await one.adelay(str(end))
            stacks = await asyncio.wait_for(asks_until_all_came(), 60)
            end.touch()
            await afinished(3)
    finally:
        end.touch()

    for body, place in [("threaded", "wait_in_thread"), ("looped", "wait_in_loop"), ("isolated", "wait_in_thread")]:
        first, second, *_ = [line for line in stacks[body].splitlines() if line.startswith("  File")]
        assert first.endswith(f"in {body}"), "the body is the first"
        assert second.endswith(f"in {place}")
        assert str(end) not in stacks[body]


async def asks_until_all_came() -> dict[str, str]:
    """The stacks of all that runs, by the task. A body that has not come to its loop yet is asked again."""
    while True:
        found: dict[str, str] = {}
        running = TaskExecutionTry.objects.filter(lease_until__isnull=False).select_related("task_execution")
        async for one in running:
            request = await StackRequest.objects.filter(pk=one.pk).afirst()
            if request is not None and "in wait_in_" in request.stack:
                found[one.task_execution.task_name] = request.stack
            elif request is None or request.taken_at is not None:
                await sync_to_async(ask)(one.pk, by="test", now=ago(seconds=0))
        if len(found) == 3:
            return found
        await asyncio.sleep(0.1)

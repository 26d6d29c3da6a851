"""Waiting for a result, unless it could never come."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

from asgiref.sync import sync_to_async
from django.db import DatabaseError, connections, transaction

from ..core.clock import current_clock
from ..core.values import decode
from ..engine.waiting_bodies import CurrentBody, current_body
from ..exceptions import ExecutionNotFound, TaskFailed, WouldWaitForever
from ..registry import find
from ..store.appending import End
from ..store.database import alias, in_transaction
from ..store.workflow_results import WorkflowEnding, ending_of, is_part_of, newest_try_of, waiting_for_a_worker
from ..telemetry import run_facts

PATIENCE_SECONDS = 1.0
"""Time for which another process may still take the call when all bodies of this process wait."""


class Written:
    """The transaction that wrote a call, while it is open: before its commit no worker can see the call.

    It counts as open while Django still holds the last `on_commit` function that was registered when the call was
    written: the call's launch, unless the call is deferred. A rollback, also to a savepoint before the call, removes
    that function; the rollback of another savepoint does not.
    """

    def __init__(self) -> None:
        connection = connections[alias()]
        self._connection: Any = connection if connection.in_atomic_block else None
        if self._connection is not None and not connection.run_on_commit:
            transaction.on_commit(lambda: None, using=alias())
        self._function = connection.run_on_commit[-1][1] if self._connection is not None else None

    @property
    def is_open(self) -> bool:
        return self._connection is not None and any(
            function is self._function for _, function, *_ in list(self._connection.run_on_commit)
        )

    @property
    def is_open_here(self) -> bool:
        """Whether the caller itself is in this transaction, and keeps it open by waiting."""
        return self.is_open and self._connection is connections[alias()]


class Wait:
    """One wait for the end of the chain that begins with `start`; with `first_only`, for `start` itself."""

    def __init__(self, start: End, written: Written | None, *, first_only: bool) -> None:
        self._start = start
        self._written = written
        self._first_only = first_only
        self._body = current_body.get()
        self._crowded_since: float | None = None
        self._is_checked = False

    def wait(self, timeout: float | None) -> Any:
        """The result. Raises TaskFailed, TimeoutError, WouldWaitForever or ResultUnavailable."""
        with _noted(self._body):
            for pause in _pauses(timeout):
                ending = self._look()
                if ending is not None:
                    return _value(ending)
                time.sleep(pause)
        raise self._timeout(timeout)

    async def await_(self, timeout: float | None) -> Any:
        """`wait` for coroutines."""
        with _noted(self._body):
            for pause in _pauses(timeout):
                ending = await sync_to_async(self._look)()
                if ending is not None:
                    return await sync_to_async(_value)(ending)
                await asyncio.sleep(pause)
        raise self._timeout(timeout)

    def _look(self) -> WorkflowEnding | None:
        try:
            found = ending_of(self._start, first_only=self._first_only)
        except ExecutionNotFound:
            if self._written is not None and self._written.is_open:
                return None  # another thread is about to commit it
            raise
        if isinstance(found, WorkflowEnding):
            return found
        if self._is_written_here(found.row):
            raise WouldWaitForever(
                f"{self._start} was enqueued in the transaction that is still open here, and no worker sees it before "
                "the commit. Wait after the transaction; in a view with ATOMIC_REQUESTS, in a later request."
            )
        own = run_facts().get("execution_id")
        if isinstance(own, int) and is_part_of(found.row, own):
            raise WouldWaitForever(
                f"{found.row} can't end before the body that waits for it. Let its next step, or a callback, take the "
                "result."
            )
        self._refuse_a_crowd(found.row)
        return None

    def _is_written_here(self, row: End) -> bool:
        """Whether the caller keeps a transaction open that wrote the row, or its newest try."""
        if self._written is not None and self._written.is_open_here:
            return True
        if self._is_checked or not in_transaction():
            return False
        self._is_checked = True
        with ThreadPoolExecutor(1) as thread:
            seen = thread.submit(_seen_by_others, row).result()
        return (newest_try_of(row) or 0) > seen

    def _refuse_a_crowd(self, row: End) -> None:
        if self._body is None or not self._body.waits.leave_no_room(for_thread=True):
            self._crowded_since = None
            return
        waiting = waiting_for_a_worker(row, current_clock().now())
        spec = None if waiting is None else find(waiting.task_path, waiting.task_name)
        for_thread = spec is None or not spec.is_coroutine
        if waiting is None or not self._body.waits.leave_no_room(for_thread=for_thread):
            self._crowded_since = None
            return
        self._crowded_since = self._crowded_since or time.monotonic()
        if time.monotonic() - self._crowded_since > PATIENCE_SECONDS:
            raise WouldWaitForever(
                f"All bodies of this worker wait for results, so {row} can't begin. Make it the next step of a chain "
                "instead of waiting for it, or give it a queue and a worker of its own."
            )

    def _timeout(self, timeout: float | None) -> TimeoutError:
        return TimeoutError(
            f"{self._start} has not finished within {timeout} seconds, and goes on. `i3tasks status ID` says what it "
            "waits for. See docs/troubleshooting.md#a-call-waits-and-nothing-runs."
        )


def _seen_by_others(row: End) -> int:
    """The number of the row's newest try that other connections see; -1 if they do not see the row."""
    try:
        newest = newest_try_of(row)
        return -1 if newest is None else newest
    except DatabaseError:  # SQLite in memory refuses it: then the wait goes on until its time-out
        return sys.maxsize
    finally:
        connections.close_all()


def _noted(body: CurrentBody | None) -> Any:
    return nullcontext() if body is None else body.waiting()


def _value(ending: WorkflowEnding) -> Any:
    if ending.failure:
        raise TaskFailed(ending.failure)
    return decode(ending.value)


def _pauses(timeout: float | None) -> Iterator[float]:
    """Pauses between looks, 20 ms growing to a second, for `timeout` seconds."""
    deadline = time.monotonic() + timeout if timeout is not None else float("inf")
    pause = 0.02
    while (left := deadline - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(pause * 1.5, 1.0)

"""Running a try right here: `sync_run`, `arun` and `force_sync`.

The same executor as everywhere, over the caller's own thread, connection and transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, connections
from django.db.models import Q

from ..broker.handover import Delivery
from ..clock import SYSTEM_CLOCK
from ..conf import get_config
from ..envelope import Envelope
from ..exceptions import I3TasksError
from ..models import TaskExecutionTry
from ..registry import TaskSpec
from ..store.database import alias, rows
from ..store.refs import TryRef
from ..store.writer import writer
from .bodies import Raised, Returned, acall, bounded, call
from .executor import Executor, Report, Verdict
from .running import Run, Running
from .store import InlineStore

WORKER_ID = "inline"


async def run_once(task_try: TaskExecutionTry, follow_up: Callable[[Any], None]) -> Report:
    """Run this try, which nobody else has heard of yet, and record how it ended."""
    report = await _execute(task_try, follow_up)
    if report.outcome is None:
        raise I3TasksError(f"The try could not be run: {report.reason}.")
    return report


async def run_to_the_end(task_try: TaskExecutionTry) -> None:
    """Run this try, its retries, and all that follows from them, without any delays."""
    waiting = await sync_to_async(_unfinished)([task_try.pk])
    while waiting:
        current = waiting.pop(0)
        due: list[TryRef] = []
        report = await _execute(current, due.extend)
        if report.outcome is not None:
            waiting += await sync_to_async(_unfinished)([ref.try_id for ref in due], current.task_execution_id)
        elif report.verdict is Verdict.NACK:
            raise I3TasksError(f"The try could not be run: {report.reason}.")
        # Else it is over: a body before it has cancelled it.


async def _execute(task_try: TaskExecutionTry, follow_up: Callable[[Any], None]) -> Report:
    settings = get_config().settings
    heartbeat_seconds: float | None = settings.heartbeat_seconds
    if await sync_to_async(_in_transaction)():
        # Nobody else can see the row, so nobody can take its lease to be dead; and the writer couldn't renew it.
        heartbeat_seconds = None
    executor = Executor(
        store=InlineStore(),
        pool=InlinePool(),
        running=Running(writer, lease_seconds=settings.lease_seconds, heartbeat_seconds=heartbeat_seconds),
        follow_up=follow_up,
        worker_id=WORKER_ID,
        unregistered_for=timedelta(0),
    )
    return await executor.execute(_delivery(task_try))


class InlinePool:
    """Sync bodies in the calling thread, coroutines in the loop; one at a time, so there is nothing to wait for."""

    @asynccontextmanager
    async def slot(self, spec: TaskSpec | None) -> AsyncIterator[None]:
        yield

    async def run(
        self, spec: TaskSpec, run: Run, function: Callable[[], Any], timeout: float | None
    ) -> Returned | Raised:
        savepoint = await sync_to_async(_savepoint)()
        if spec.is_coroutine:
            answer = await bounded(run, acall(run, function), timeout)
        else:
            answer = await sync_to_async(call)(function)
        await sync_to_async(_leave)(savepoint, answer)
        return answer


def _savepoint() -> str | None:
    return connections[alias()].savepoint() if _in_transaction() else None


def _leave(savepoint: str | None, answer: Returned | Raised) -> None:
    """A body's database error must not spoil the caller's transaction, in which its failure is to be recorded."""
    if savepoint is None:
        return
    connection = connections[alias()]
    if isinstance(answer, Raised) and (
        connection.needs_rollback or isinstance(answer.error, (DatabaseError, InterfaceError))
    ):
        connection.needs_rollback = False
        connection.savepoint_rollback(savepoint)
    else:
        connection.savepoint_commit(savepoint)


def _in_transaction() -> bool:
    return connections[alias()].in_atomic_block


def _delivery(task_try: TaskExecutionTry) -> Delivery:
    execution = task_try.task_execution
    envelope = Envelope(execution.pk, task_try.pk, execution.task_path, execution.task_name)
    return Delivery(
        data=envelope.to_bytes(),
        attributes={},
        message_id="inline",
        publish_time=SYSTEM_CLOCK.now(),
        delivery_attempt=None,
        queue_name=execution.queue_name or "",
    )


def _unfinished(try_ids: list[int], execution_id: int | None = None) -> list[TaskExecutionTry]:
    """These tries, and the execution's next one, due whenever they may be."""
    wanted = Q(pk__in=try_ids) | Q(task_execution=execution_id)
    tries = rows(TaskExecutionTry).filter(wanted, is_completed=False, claim_token__isnull=True)
    tries.update(run_after=None)
    return list(tries.select_related("task_execution").order_by("pk"))

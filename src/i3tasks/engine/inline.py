"""Running a try right here: `sync_run`, `arun` and `force_sync`.

The same executor as everywhere, over the caller's own thread, connection and transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections

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
from .executor import Executor, Report
from .running import Run, Running
from .store import InlineStore

WORKER_ID = "inline"


async def run_once(task_try: TaskExecutionTry, follow_up: Callable[[Any], None]) -> Report:
    """Run this try, which nobody else has heard of yet, and record how it ended."""
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
    )
    report = await executor.execute(_delivery(task_try))
    if report.outcome is None:
        raise I3TasksError(f"The try could not be run: {report.reason}.")
    return report


async def run_to_the_end(task_try: TaskExecutionTry) -> None:
    """Run this try, its retries without their delays, and all that follows from them."""
    waiting = [task_try]
    while waiting:
        current = waiting.pop(0)
        due: list[TryRef] = []
        await run_once(current, due.extend)
        waiting += await sync_to_async(_unfinished)(current.task_execution_id, [ref.try_id for ref in due])


class InlinePool:
    """Sync bodies in the calling thread, coroutines in the loop; one at a time, so there is nothing to wait for."""

    @asynccontextmanager
    async def slot(self, spec: TaskSpec | None) -> AsyncIterator[None]:
        yield

    async def run(
        self, spec: TaskSpec, run: Run, function: Callable[[], Any], timeout: float | None
    ) -> Returned | Raised:
        if spec.is_coroutine:
            return await bounded(run, acall(run, function), timeout)
        return await sync_to_async(call)(function)


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


def _unfinished(execution_id: int, try_ids: list[int]) -> list[TaskExecutionTry]:
    """The execution's next try, whenever it is due, and these ones."""
    tries = rows(TaskExecutionTry).filter(is_completed=False, claim_token__isnull=True)
    tries.filter(task_execution=execution_id).update(run_after=None)
    wanted = tries.filter(task_execution=execution_id) | tries.filter(pk__in=try_ids)
    return list(wanted.select_related("task_execution").order_by("pk"))

"""Runs a try inline, in the calling thread: `sync_run`, `arun` and `force_sync`.

The executor is the same as everywhere. It uses the caller's thread, connection and transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.models import Q

from ..broker.deliveries import Delivery
from ..conf import get_config
from ..core.clock import current_clock
from ..core.envelope import Envelope
from ..core.outcome import Released
from ..exceptions import I3TasksError
from ..models import TaskExecutionTry
from ..registry import TaskSpec
from ..signals import held
from ..store.database import alias, rows
from ..store.requests import TryRef
from ..store.states import UNCLAIMED_TRY
from .bodies import Raised, Returned, acall, answer_of, bounded, call
from .caller_connections import CallersConnections
from .connections import is_in_transaction
from .executor import Executor
from .exits import responsible
from .gateway import InlineGateway, writer
from .lease_renewal import HandedBack, Run, Running
from .report import Report, Verdict

WORKER_ID = "inline"
MOST_SNOOZES = 100


async def run_try(task_try: TaskExecutionTry, follow_up: Callable[[Any], None]) -> Report:
    """Run this try, which no other process knows of yet, and record its outcome."""
    report = await _execute(task_try, follow_up)
    if report.outcome is None:
        raise I3TasksError(f"The try could not be run: {report.sentence}.")
    if isinstance(report.error, HandedBack):
        raise I3TasksError(
            "The try was not begun, because the event loop was blocked for as long as its lease. A worker will run it; "
            "look for what blocks the loop."
        )
    return report


async def run_due(task_try: TaskExecutionTry) -> BaseException | None:
    """Run this try, which may have been cancelled meanwhile; what follows from it waits in its rows.

    Returns the error of its body. Raises I3TasksError if it could not be run, and still waits.
    """
    report = await _execute(task_try, lambda due: None)
    if report.outcome is None and report.verdict is Verdict.NACK:
        raise I3TasksError(f"The try could not be run: {report.sentence}.")
    return None if isinstance(report.outcome, Released) else report.error


async def run_to_the_end(task_try: TaskExecutionTry) -> None:
    """Run this try, its retries and all follow-ups, without any delays."""
    waiting = await sync_to_async(_unfinished)([task_try.pk])
    snoozes = 0
    while waiting:
        current = waiting.pop(0)
        due: list[TryRef] = []
        report = await _execute(current, due.extend)
        snoozes += isinstance(report.outcome, Released)
        if snoozes > MOST_SNOOZES:
            raise I3TasksError(
                f"The body has raised Snooze {snoozes} times. In place, no time passes between them: test it by "
                "`drain()`, which waits for `advance()`."
            )
        if report.outcome is not None:
            waiting += await sync_to_async(_unfinished)([ref.try_id for ref in due], current.task_execution_id)
        elif report.verdict is Verdict.NACK:
            raise I3TasksError(f"The try could not be run: {report.sentence}.")
        # Otherwise it has ended already: an earlier body has cancelled it.


async def _execute(task_try: TaskExecutionTry, follow_up: Callable[[Any], None]) -> Report:
    settings = get_config().settings
    heartbeat_seconds: float | None = settings.heartbeat_seconds
    if await sync_to_async(_in_transaction)():
        # The row is not committed: no other process can expire its lease, and the writer could not renew it.
        heartbeat_seconds = None
    executor = Executor(
        store=InlineGateway(),
        pool=InlinePool(),
        running=Running(writer, lease_seconds=settings.lease_seconds, heartbeat_seconds=heartbeat_seconds),
        follow_up=follow_up,
        worker_id=WORKER_ID,
        unregistered_for=timedelta(0),
        heeds_pauses=False,
        is_callers=True,
    )
    with held() as signals:
        report = await executor.execute(_delivery(task_try))
    if signals.messages:
        await sync_to_async(signals.send)()
    return report


class InlinePool:
    """Runs sync bodies in the calling thread and coroutines in the loop, one at a time, so that none has to wait."""

    spare_threads = None

    @asynccontextmanager
    async def slot(self, spec: TaskSpec | None) -> AsyncIterator[InlinePool]:
        yield self

    async def run(
        self, spec: TaskSpec, run: Run, function: Callable[[], Any], timeout: float | None
    ) -> Returned | Raised:
        if run.reason is not None:  # its lease may have expired before it began
            return Raised(run.reason)
        if not spec.is_coroutine:
            with responsible(run):  # async_to_sync in the body uses this loop
                return answer_of(run, await sync_to_async(_call)(function))
        callers = await sync_to_async(CallersConnections)()
        answer = await bounded(run, acall(run, function), timeout)
        return await sync_to_async(callers.take_back)(answer)


def _call(function: Callable[[], Any]) -> Returned | Raised:
    callers = CallersConnections()
    return callers.take_back(call(function))


def _in_transaction() -> bool:
    return is_in_transaction(connections[alias()])


def _delivery(task_try: TaskExecutionTry) -> Delivery:
    execution = task_try.task_execution
    envelope = Envelope(execution.pk, task_try.pk, execution.task_path, execution.task_name)
    return Delivery(
        data=envelope.to_bytes(),
        attributes={},
        message_id="inline",
        publish_time=current_clock().now(),
        delivery_attempt=None,
        queue_name=execution.queue_name or "",
    )


def _unfinished(try_ids: list[int], execution_id: int | None = None) -> list[TaskExecutionTry]:
    """Return these tries and the execution's next one, and make them due at once."""
    wanted = Q(pk__in=try_ids) | Q(task_execution=execution_id)
    tries = rows(TaskExecutionTry).filter(UNCLAIMED_TRY, wanted)
    tries.update(run_after=None)
    return list(tries.select_related("task_execution").order_by("pk"))

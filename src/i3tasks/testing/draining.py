"""Runs what is due, here and now, in the test's own transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.db.models import F, Q
from django.db.models.functions import Coalesce

from ..core.clock import Clock, going_by
from ..engine.beat import Beat
from ..engine.inline import run_due
from ..engine.launch import refuse_in_loop
from ..exceptions import I3TasksError
from ..models import TaskExecutionTry, TryState
from ..store.database import rows
from ..store.expiry import expire_leases
from ..store.groups import expire_groups
from ..store.pauses import pause_of, paused_queues
from .clock import moved_clock

BATCH = 500


def drain(
    *, queue_name: str | None = None, schedules: bool = False, raise_errors: bool = False, most: int = 1000
) -> list[TaskExecutionTry]:
    """Run every try that is due, and what follows from it, until none is due; return the tries in their order.

    They are run one by one by the executor of production, in this thread, connection and transaction. A failure is
    recorded and its retry waits for its time: `advance()` to it.

    queue_name    only the calls of this queue
    schedules     True: enqueue the slots of schedules that are due first
    raise_errors  True: raise the first error of a body here, once it is recorded
    most          raise I3TasksError once that many tries were run and more are due

    A try whose lease has run out by the test's clock ends as lost. One of a paused queue stays as it is.
    """
    refuse_in_loop("drain", "adrain")
    return async_to_sync(adrain)(queue_name=queue_name, schedules=schedules, raise_errors=raise_errors, most=most)


async def adrain(
    *, queue_name: str | None = None, schedules: bool = False, raise_errors: bool = False, most: int = 1000
) -> list[TaskExecutionTry]:
    """`drain` for coroutines."""
    clock = moved_clock()
    with going_by(clock):
        ran: list[int] = []
        if schedules:
            await sync_to_async(_beat)(clock)
        while due := await sync_to_async(_due)(clock, queue_name):
            for task_try in due:
                if len(ran) >= most:
                    raise I3TasksError(
                        f"drain() has run {most} tries, and more are due. Does a task enqueue itself? Otherwise pass a "
                        "larger `most`."
                    )
                error = await run_due(task_try)
                ran.append(task_try.pk)
                if error is not None and raise_errors:
                    raise error
        return await sync_to_async(_loaded)(ran)


def _beat(clock: Clock) -> None:
    beat = Beat()
    beat.pass_once(now=clock.now())
    if beat.problem:
        raise I3TasksError(beat.problem)


def _due(clock: Clock, queue_name: str | None) -> Sequence[TaskExecutionTry]:
    now = clock.now()
    expire_leases(BATCH, clock=clock, now=now)
    expire_groups(BATCH, now=now)
    waiting = rows(TaskExecutionTry).filter(
        TryState.PENDING.condition(),
        Q(run_after__isnull=True) | Q(run_after__lte=now),
        claim_token__isnull=True,
        dispatch_at__isnull=False,
    )
    if queue_name is not None:
        waiting = waiting.filter(task_execution__queue_name=queue_name)
    if paused_queues():
        waiting = waiting.annotate(pause_id=pause_of("task_execution__queue_name")).filter(pause_id__isnull=True)
    first: Any = (F("task_execution__priority").desc(), Coalesce("run_after", "asked_at"), "pk")
    return list(waiting.select_related("task_execution").order_by(*first)[:BATCH])


def _loaded(try_ids: Sequence[int]) -> list[TaskExecutionTry]:
    found = rows(TaskExecutionTry).select_related("task_execution", "result").in_bulk(try_ids)
    return [found[try_id] for try_id in try_ids if try_id in found]

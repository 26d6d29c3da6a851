"""The expiry of leases: ends the tries of workers that died, and writes the next ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import InterfaceError, OperationalError
from django.db.models import F, QuerySet

from ..core.clock import Clock
from ..core.outcome import Failure
from ..exceptions import WorkerLost
from ..models import TaskExecution, TaskExecutionTry
from ..registry import policy_of
from ..telemetry import emit
from .database import DATABASE_TIME, Instant, atomic, database_time, rows, unlocked, with_database_time
from .failures import facts_of, report_failure
from .locks import lock_executions
from .requests import NextTry, Settled, TryRef
from .settle import TryEnding, apply, blocked_by_groups

_NAMES = [f"task_execution__{name}" for name in ("uuid", "task_path", "task_name", "queue_name")]


def expire_leases(limit: int, *, clock: Clock, now: Instant = DATABASE_TIME) -> list[TryRef]:
    """End running tries whose lease ran out as lost with their worker, which counts as a failed try.

    Gives the next tries that are due at once. A try that can't be ended is an event, and holds up no other.
    """
    try:
        return _expire(_overdue(now)[:limit], clock)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        due: list[TryRef] = []
        named = _overdue(now).select_related("task_execution").only("try_number", "worker_id", *_NAMES)
        for task_try in list(named[:limit]):
            try:
                due += _expire(_overdue(now).filter(pk=task_try.pk), clock)
            except (OperationalError, InterfaceError):
                raise
            except Exception as error:
                facts = facts_of(task_try, task_try.task_execution)
                emit("internal_error", **facts, where="expire_leases", error=repr(error), exc_info=error)
        return due


def _overdue(now: Instant) -> QuerySet[Any]:
    running = with_database_time(rows(TaskExecutionTry).filter(lease_until__isnull=False), now)
    overdue: QuerySet[Any] = running.filter(lease_until__lt=F("database_time")).order_by("lease_until")
    return overdue


def _expire(overdue: QuerySet[Any], clock: Clock) -> list[TryRef]:
    with atomic():
        tries = unlocked(overdue)
        executions = lock_executions({task_try.task_execution_id for task_try in tries}, wait=False)
        endings = [
            _lost(task_try, executions[task_try.task_execution_id], clock)
            for task_try in tries
            if task_try.task_execution_id in executions
        ]
        blocked = blocked_by_groups(endings, wait=False)
        endings = [ending for ending in endings if ending.task_try.pk not in blocked]
        due, retries = apply(endings)
        # Without its token, a worker that was only slow finds its settlement stale.
        rows(TaskExecutionTry).filter(pk__in=[ending.task_try.pk for ending in endings]).update(claim_token=None)
    _report(endings, retries)
    return [item for items in due.values() for item in items]


def _report(endings: Sequence[TryEnding], retries: Mapping[int, NextTry]) -> None:
    """Emit which tries were lost, and for each one the event of a failed try."""
    if not endings:
        return
    executions = [ending.execution.pk for ending in endings]
    emit("tries_lost", executions=executions, tries=[ending.task_try.pk for ending in endings])
    for ending in endings:
        assert isinstance(ending.outcome, Failure)
        execution = ending.execution
        is_cancelled = execution.cancel_requested_at is not None
        settled = Settled(at=ending.at, next_try=retries.get(execution.pk), is_cancelled=is_cancelled)
        facts = facts_of(ending.task_try, execution) | _of_run(ending)
        report_failure(facts, ending.outcome, settled, _worker_lost(ending.task_try))


def _of_run(ending: TryEnding) -> dict[str, Any]:
    task_try = ending.task_try
    started_at = task_try.started_at or ending.at
    due_since = task_try.run_after or task_try.asked_at
    return {
        "worker": task_try.worker_id or "",
        "duration": max((ending.at - started_at).total_seconds(), 0.0),
        "queue_time": max((started_at - due_since).total_seconds(), 0.0),
    }


def _lost(task_try: TaskExecutionTry, execution: TaskExecution, clock: Clock) -> TryEnding:
    error = _worker_lost(task_try)
    policy = policy_of(execution.task_path, execution.task_name, execution.options or {})
    return TryEnding(
        task_try, execution, Failure.of(error, policy, task_try.try_number, clock), database_time(task_try)
    )


def _worker_lost(task_try: TaskExecutionTry) -> WorkerLost:
    return WorkerLost(f"Worker {task_try.worker_id} died, or lost the database, before the try was finished.")

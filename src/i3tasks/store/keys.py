"""One execution for one key: `idempotency_key`, and tasks that are unique while unfinished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ..exceptions import StoreUnavailable
from ..models import TaskExecutionTry, TaskKey
from .database import atomic, locked, rows


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """Who asks for a key. `expires_at` None: the key is free again when its execution has finished."""

    key: str
    token: UUID
    expires_at: datetime | None


def argument_key(module_name: str, func_name: str, args: Any, kwargs: Any) -> str:
    """The key that calls of one task with equal arguments share."""
    arguments = json.dumps([args, kwargs], sort_keys=True, separators=(",", ":"))
    return f"unique:{hashlib.sha256(f'{module_name}.{func_name}:{arguments}'.encode()).hexdigest()}"


def insert_once(
    request: KeyRequest, insert: Callable[[], TaskExecutionTry], *, now: datetime
) -> tuple[TaskExecutionTry, bool]:
    """The try made by `insert`, and True; or the latest try of the execution that has the key already, and False.

    Nobody waits but for a transaction that is about to commit the same key, and a key that is taken raises nothing,
    so the caller's transaction stays good.
    """
    with atomic():
        rows(TaskKey).bulk_create([_row(request)], ignore_conflicts=True)
        key = locked(rows(TaskKey).filter(key=request.key), wait=True).first()
        if key is None:
            # Committed by somebody else, and not to be seen at this isolation level.
            raise StoreUnavailable(f"The key {request.key!r} is being written by another transaction. Try again.")
        if key.token != request.token and not _is_free(key, now):
            return _latest_try(key), False
        task_try = insert()
        rows(TaskKey).filter(pk=key.pk).update(
            token=request.token, task_execution=task_try.task_execution_id, expires_at=request.expires_at
        )
        return task_try, True


def _row(request: KeyRequest) -> TaskKey:
    return TaskKey(key=request.key, token=request.token, expires_at=request.expires_at)


def _is_free(key: TaskKey, now: datetime) -> bool:
    if key.expires_at is not None:
        return key.expires_at <= now
    return key.task_execution is None or key.task_execution.outcome is not None


def _latest_try(key: TaskKey) -> TaskExecutionTry:
    tries = rows(TaskExecutionTry).filter(task_execution=key.task_execution_id).select_related("task_execution")
    return tries.order_by("-try_number")[:1].get()

"""One execution for one key: `idempotency_key`, and tasks that are unique while unfinished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet

from ..core import binding
from ..exceptions import StoreUnavailable
from ..models import TaskExecutionTry, TaskKey, new_uuid
from ..registry import TaskSpec
from .database import atomic, locked, rows


@dataclass(frozen=True, slots=True)
class Key:
    """A key of which one call is written at a time. It is taken for `lifetime`; None: until that call has finished."""

    text: str
    lifetime: timedelta | None


def argument_key(spec: TaskSpec, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Key:
    """The key that calls of one `unique` task with equal arguments share, however these are spelt. JSON data."""
    values = binding.by_parameter(spec.function, args, kwargs)
    arguments = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return Key(f"unique:{_digest(f'{spec.path}:{arguments}')}", None)


def caller_key(spec: TaskSpec, key: str, period: timedelta) -> Key:
    """The key of an `idempotency_key`. Each task has keys of its own."""
    return Key(f"key:{_digest(f'{spec.path}:{key}')}", period)


def insert_once(key: Key, insert: Callable[[], TaskExecutionTry], *, now: datetime) -> tuple[TaskExecutionTry, bool]:
    """The try made by `insert`, and True; or the latest try of the execution that has the key already, and False.

    A key that is taken raises nothing and takes no lock. Raises StoreUnavailable if another transaction has written
    the key, and does not commit in time: call it inside `lock_timeout.short_locks`.
    """
    wanted = TaskKey(key=key.text, token=new_uuid(), expires_at=None if key.lifetime is None else now + key.lifetime)
    known = rows(TaskKey).filter(key=key.text).select_related("task_execution").first()
    if known is not None and not _is_free(known, now):
        return _latest_try(known), False
    with atomic():
        if known is None:
            rows(TaskKey).bulk_create([wanted], ignore_conflicts=True)
        row = locked(rows(TaskKey).filter(key=key.text), wait=True).first()
        if row is None:
            # Another transaction has committed the key, and at this isolation level we can't see it.
            raise StoreUnavailable(f"The key {key.text!r} is being written by another transaction. Try again.")
        if row.token != wanted.token and not _is_free(row, now):
            return _latest_try(row), False
        task_try = insert()
        rows(TaskKey).filter(pk=row.pk).update(
            token=wanted.token, task_execution=task_try.task_execution_id, expires_at=wanted.expires_at
        )
        return task_try, True


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_free(key: TaskKey, now: datetime) -> bool:
    if key.expires_at is not None:
        return key.expires_at <= now
    if key.task_execution is None or key.task_execution.outcome is not None:
        return True
    # A worker of django-i3tasks writes no outcome: the execution has ended when its latest try has.
    latest = _tries(key).first()
    return latest is not None and (latest.is_success or latest.finished_at is not None)


def _latest_try(key: TaskKey) -> TaskExecutionTry:
    return _tries(key)[:1].get()


def _tries(key: TaskKey) -> QuerySet[TaskExecutionTry]:
    tries = rows(TaskExecutionTry).filter(task_execution=key.task_execution_id).select_related("task_execution")
    return tries.order_by("-try_number")

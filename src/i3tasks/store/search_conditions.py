"""The parts of a search as conditions on executions, to be asked of rows that an index has chosen."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from functools import reduce
from operator import or_

from django.db import connections
from django.db.models import Exists, OuterRef, Q, TextField
from django.db.models.functions import Cast
from django.db.models.lookups import IContains

from ..conf import get_config
from ..models import TaskExecutionTry
from ..registry import all_tasks
from .database import alias, rows
from .search_terms import Window


def any_of(conditions: Iterable[Q]) -> Q:
    """One of them holds; without any, all do."""
    return reduce(or_, conditions, Q())


def within(column: str, span: Window) -> Q:
    """The column's instant lies in the window."""
    start = Q() if span.start is None else Q(**{f"{column}__gte": span.start})
    return start & (Q() if span.end is None else Q(**{f"{column}__lt": span.end}))


def named(task: str) -> Q:
    """Executions of the task: its name, with or without its module."""
    module, _, function = task.rpartition(".")
    return (Q(task_name=function) if task else Q()) & (Q(task_path=module) if module else Q())


def in_queue(queue: str) -> Q:
    """Executions of the queue; without a name they are of the default one."""
    if not queue:
        return Q()
    is_default = queue == get_config().settings.default_queue.queue_name
    return Q(queue_name=queue) | (Q(queue_name__isnull=True) if is_default else Q())


def in_other_queues(queues: Collection[str]) -> Q:
    """Executions of all queues but these."""
    if not queues:
        return Q()
    has_default = get_config().settings.default_queue.queue_name in queues
    return ~Q(queue_name__in=queues) & (Q(queue_name__isnull=False) if has_default else Q())


def failed_with(error: str) -> Q:
    """Executions one of whose tries failed with this class: its full name, or the last part of it."""
    if not error:
        return Q()
    failed = rows(TaskExecutionTry).filter(of_class_named(error), is_success=False)
    return Q(Exists(failed.filter(task_execution=OuterRef("pk"))))


def of_class_named(error: str) -> Q:
    """Tries whose error class has this full name, or this last part of it."""
    return Q(error_class=error) if "." in error else Q(error_class=error) | Q(error_class__endswith=f".{error}")


def tried(times: int) -> Q:
    """Executions of which at least so many tries have begun. A try that raised Snooze waits, and does not count."""
    if times < 1:
        return Q()
    begun = rows(TaskExecutionTry).filter(task_execution=OuterRef("pk"), started_at__isnull=False)
    return Q(Exists(begun[times - 1 :]))


def with_argument(text: str) -> Q:
    """Executions whose arguments hold this text, as JSON writes it. Those of sensitive tasks are not looked into."""
    if not text:
        return Q()
    as_stored = json.dumps(text, ensure_ascii=connections[alias()].vendor == "sqlite")[1:-1]
    found = any_of(Q(IContains(Cast(name, TextField()), as_stored)) for name in ("task_args", "task_kwargs"))
    sensitive = [spec for spec in all_tasks() if spec.options.sensitive]
    return found & ~any_of(Q(task_path=spec.module_name, task_name=spec.func_name) for spec in sensitive)

"""Retention as a project's code calls it. What is old, and its deletion, are in `store.retention`."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import QuerySet

from ..core.clock import current_clock
from ..models import TaskExecution
from ..store.ages import Ages
from ..store.retention import clean, old_executions


def clean_old_task_executions(older_than: timedelta | None = None, batch_size: int | None = None) -> int:
    """Delete finished executions that are older than `older_than`, with their tries and results; give their number.

    Without `older_than`, the settings say how long they are kept; where these say nothing, nothing is deleted. Failures
    are kept for as long as the settings say, if they have an age of their own. Where the settings have `retention`, an
    age counts from the end of an execution, else from its creation. `batch_size` is the number of executions deleted
    in one transaction (1,000 by default, at most 10,000). Finished groups without members, and ticks of schedules whose
    execution is deleted, are deleted too.
    """
    ages = Ages.of(older_than)
    return 0 if ages is None else clean(ages, batch_size, now=current_clock().now()).executions


def old_task_executions(older_than: timedelta | None = None) -> QuerySet[TaskExecution] | None:
    """The executions that `clean_old_task_executions` would delete; None when no age is given or set."""
    ages = Ages.of(older_than)
    return None if ages is None else old_executions(ages, current_clock().now())

"""Where the rows live, and how they are locked."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

from django.db import connections, router, transaction
from django.db.models import DateTimeField, ExpressionWrapper, Model, QuerySet
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from ..models import TaskExecution

Row = TypeVar("Row", bound=Model)
Rows = Any
"""A QuerySet whose rows may carry annotations, which have no static type."""


def alias() -> str:
    """The database of all i3tasks tables."""
    return router.db_for_write(TaskExecution)


def atomic() -> transaction.Atomic:
    """A transaction on that database; inside another one, a part of it."""
    return transaction.atomic(using=alias(), savepoint=False)


def rows(model: type[Row]) -> QuerySet[Row]:
    """All rows of `model`, from that database."""
    return model._default_manager.using(alias())


def locked(queryset: Rows, *, wait: bool) -> Rows:
    """Lock the rows in primary key order, without conflicting with foreign keys that others are inserting.

    Rows that someone else has locked are left out, or waited for with `wait`. SQLite's transactions
    (`transaction_mode` IMMEDIATE) exclude each other anyway.
    """
    queryset = queryset.order_by("pk")
    if connections[queryset.db].features.has_select_for_no_key_update:
        return queryset.select_for_update(skip_locked=not wait, no_key=True)
    return queryset


def with_database_time(queryset: Rows, now: Combinable | None = None) -> Rows:
    """Adds `database_time`: one clock for all processes. A simulation passes its own `now`."""
    return queryset.annotate(database_time=ExpressionWrapper(now or Now(), output_field=DateTimeField()))


def database_time(row: Any) -> datetime:
    """What `with_database_time` read beside `row`."""
    value: datetime = row.database_time
    return value

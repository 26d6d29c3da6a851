"""The base of all models: how rows are read, their times, ids and JSON."""

# pyright: reportIncompatibleVariableOverride=false
# (a model's Meta is not a subclass of its abstract parent's)

from __future__ import annotations

from typing import Any, TypeVar
from uuid import UUID

from django.db import models, router

from ..core.clock import current_clock

AnyRow = TypeVar("AnyRow", bound=models.Model)


def new_uuid() -> UUID:
    """A fresh time-ordered id."""
    return current_clock().new_uuid7()


def new_uuids(count: int) -> list[str]:
    """So many of them in hexadecimal, in their order."""
    return current_clock().new_uuid7s(count)


class Unreadable(str):
    """Stands in for JSON that Python can't read. It is text, so that all pages can show it."""


class StoredJSON(models.JSONField):
    """A column of JSON in which one row that is nested too deeply keeps no other from being read."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        try:
            return super().from_db_value(value, expression, connection)
        except (RecursionError, ValueError):  # ValueError: a number of more digits than Python takes
            return Unreadable("(JSON that can't be read: it is nested too deeply, or holds too long a number)")

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs  # migrations need not know


class OneDatabase(models.Manager[AnyRow]):
    """Reads rows from the database to which they are written, even if a router reads other models from replicas.

    A replica may lag behind: an execution that was just enqueued is not there yet.
    """

    def get_queryset(self) -> models.QuerySet[AnyRow]:
        queryset = super().get_queryset()
        return queryset if self._db else queryset.using(router.db_for_write(self.model))


class Row(models.Model):
    objects = OneDatabase()

    class Meta:
        abstract = True
        base_manager_name = "objects"  # by which foreign keys and refresh_from_db read


class Stamped(Row):
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True

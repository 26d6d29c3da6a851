"""Executions, as people name them on a command line."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.management.base import CommandError

from ..models import TaskExecution
from ..store.database import rows


def execution_named(text: str) -> TaskExecution:
    """The execution of that id or uuid. Raises CommandError."""
    try:
        by: dict[str, Any] = {"pk": int(text)} if text.isdigit() else {"uuid": UUID(text)}
    except ValueError:
        raise CommandError(f"{text!r} is neither an id nor a uuid.") from None
    execution = rows(TaskExecution).filter(**by).first()
    if execution is None:
        raise CommandError(f"There is no execution {text}.")
    return execution

"""Starts tries that were just written: publishes them after the commit, or runs them at once with `force_sync`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from asgiref.sync import async_to_sync
from django.db import transaction

from ..conf import get_config
from ..exceptions import I3TasksError
from ..models import TaskExecutionTry
from ..store.database import alias, rows

if TYPE_CHECKING:
    from ..store.requests import TryRef


def launch(tries: Sequence[TaskExecutionTry]) -> None:
    """Publish the tries that are due once the caller's transaction has committed; with `force_sync`, run them here."""
    if get_config().settings.force_sync:
        from .inline import run_to_the_end  # late: most processes that enqueue never need the engine

        refuse_in_loop("force_sync", "adelay")
        for task_try in tries:
            async_to_sync(run_to_the_end)(task_try)
    else:
        _send_on_commit(tries)


def launch_refs(refs: Sequence[TryRef]) -> None:
    """Launch the tries that a settlement returned."""
    if refs:
        tries = rows(TaskExecutionTry).filter(pk__in=[item.try_id for item in refs]).order_by("pk")
        launch(list(tries.select_related("task_execution")))


def refuse_in_loop(name: str, twin: str) -> None:
    """Raise if called in an event loop, which `name` would block. `twin` is the method to await instead."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    if not os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE"):  # Django's own switch, for notebooks
        raise I3TasksError(f"{name} can't be used inside a coroutine: it would block the loop. Await {twin} instead.")


def _send_on_commit(tries: Sequence[TaskExecutionTry]) -> None:
    from ..store.inserting import due_refs  # late: a process that only defines tasks writes none

    due = due_refs(tries)

    def send() -> None:  # a function and not a partial: Django names it when it fails
        from . import outbox  # with the publisher: a process that only defines tasks needs neither

        outbox.send(due)

    if due:
        transaction.on_commit(send, using=alias(), robust=True)

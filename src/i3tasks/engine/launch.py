"""What happens to tries that were just written: they are published after the commit, or run at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from asgiref.sync import async_to_sync
from django.db import transaction

from .. import outbox
from ..clock import SYSTEM_CLOCK
from ..conf import get_config
from ..exceptions import I3TasksError
from ..models import TaskExecutionTry
from ..store.database import alias, rows
from ..store.enqueue import ref
from ..store.refs import TryRef
from .inline import run_to_the_end


def launch(tries: Sequence[TaskExecutionTry]) -> None:
    """Publish the tries that are due once the caller's transaction has committed; with `force_sync`, run them here."""
    if get_config().settings.force_sync:
        refuse_in_loop("force_sync")
        for task_try in tries:
            async_to_sync(run_to_the_end)(task_try)
    else:
        _send_on_commit(tries)


def launch_refs(refs: Sequence[TryRef]) -> None:
    """`launch` what a settlement gave."""
    if refs:
        tries = rows(TaskExecutionTry).filter(pk__in=[item.try_id for item in refs]).order_by("pk")
        launch(list(tries.select_related("task_execution")))


def refuse_in_loop(name: str) -> None:
    """Raise where blocking would stop an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise I3TasksError(f"{name} can't be used inside a coroutine. Await the async method instead: adelay, or arun.")


def _send_on_commit(tries: Sequence[TaskExecutionTry]) -> None:
    now = SYSTEM_CLOCK.now()
    due = [ref(task_try) for task_try in tries if task_try.run_after is None or task_try.run_after <= now]

    def send() -> None:  # a function and not a partial: Django names it when it fails
        outbox.send(due)

    if due:
        transaction.on_commit(send, using=alias(), robust=True)

"""Tells a worker when its queues are empty, for `run-worker --until-empty`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import anyio
from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, connections

from ..store.database import alias
from ..store.fallback import due_of
from ..store.pauses import known_pauses
from .fallback import COST

LOOK_SECONDS = 0.5


async def until_empty(queues: Sequence[str], begun: Callable[[], int | None]) -> None:
    """Return when no try that is due waits in these queues, but for paused ones, and none runs here.

    `begun` gives how many tries the worker has begun so far, or None while one is under way: a try that ends between
    the look at the rows and the look at the worker may have written a next step. Without the database it goes on.
    """
    while True:
        before, began = begun(), time.monotonic()
        if before is not None and not await _is_something_due(queues) and begun() == before:
            return
        await anyio.sleep(max(LOOK_SECONDS, COST * (time.monotonic() - began)))


async def _is_something_due(queues: Sequence[str]) -> bool:
    try:
        return bool(await due_of([name for name in queues if not known_pauses.hold(name)]).aexists())
    except (DatabaseError, InterfaceError):  # the writer has its own event for this
        await sync_to_async(connections[alias()].close)()
        return True

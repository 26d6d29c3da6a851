"""Running what Pub/Sub pushes: one engine for each event loop of a web process.

The work belongs to the process, not to the request: a client that hangs up cancels nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from asgiref.sync import sync_to_async

from ..broker.handover import Delivery
from ..dispatcher import Dispatcher
from ..exceptions import I3TasksError
from ..telemetry import emit
from .executor import Report
from .process import Engine, make_engine

PASS_EVERY_SECONDS = 5.0

_engines: dict[asyncio.AbstractEventLoop, Engine] = {}
_under_way: set[asyncio.Task[Any]] = set()  # the loop itself refers to its tasks only weakly
_dispatcher: Dispatcher | None = None


async def carry_out(delivery: Delivery) -> Report:
    """Execute a pushed message; it goes on if the caller is cancelled."""
    executing = _engine().executor.execute(delivery)
    # A context of its own: the request's language, log fields and database thread are not the body's.
    task = asyncio.get_running_loop().create_task(executing, context=contextvars.Context())
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    return await asyncio.shield(task)


async def dispatch(*, every_seconds: float = 0) -> None:
    """A dispatcher pass, for deployments without a worker; none if this process made one so recently."""
    global _dispatcher
    if _dispatcher is None:
        _dispatcher = Dispatcher()
    if _dispatcher.seconds_since_pass() >= every_seconds:
        try:
            await sync_to_async(_dispatcher.pass_once)()
        except I3TasksError as error:
            emit("dispatch_failed", error=str(error))


def _engine() -> Engine:
    loop = asyncio.get_running_loop()
    if loop not in _engines:
        _close_ended()
        _engines[loop] = make_engine()
    return _engines[loop]


def _close_ended() -> None:
    """Under WSGI each request has a loop of its own, and its engine's threads and connections must not outlive it."""
    for loop in list(_engines):
        if loop.is_closed() and (engine := _engines.pop(loop, None)) is not None:
            engine.pool.close()

"""Runs the tries that Pub/Sub pushes: one engine for each event loop of a web process.

A run belongs to the process and not to the request: a client that disconnects cancels nothing. As in a worker, it is
carried out by a task of the pool that lives long.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from django.db import connections

from ..broker.deliveries import Delivery
from ..conf import Identity, get_config
from ..models import WorkerRole
from ..store.writer import idle_seconds
from ..telemetry import emit
from ..threads.batching import BatchThread
from ..threads.forking import reset_signals_in_children
from .assembly import Engine, make_engine
from .dispatcher import Dispatcher
from .executor import Arrival, Executor
from .pool import Slot
from .report import NotRun, Report, Verdict
from .worker_row import Presence

PASS_EVERY_SECONDS = 5.0
MOST_REQUESTS = 10_000

_engines: dict[asyncio.AbstractEventLoop, Engine] = {}
_under_way: set[asyncio.Future[Report]] = set()
_dispatcher: Dispatcher | None = None
_presence: tuple[int, Presence] | None = None  # with the id of its process


async def carry_out(delivery: Delivery, sender: Identity | None) -> Report:
    """Execute a pushed message, if it names a try of a queue that `sender` pushes.

    With None for `sender` it may be of any push queue. The run goes on if the caller is cancelled.
    """
    engine = _engine()
    arrival = engine.executor.read(delivery, get_config().queues_pushed_by(sender))
    if isinstance(arrival, Report):
        return arrival
    reported: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
    refuse = partial(_resolve, reported, Report(Verdict.NACK, NotRun.STOPPING, envelope=arrival.envelope))
    engine.pool.submit(arrival.spec, partial(_carry_out, engine.executor, arrival, reported), refuse)
    return await reported


async def _carry_out(executor: Executor, arrival: Arrival, reported: asyncio.Future[Report], slot: Slot) -> None:
    presence = web_presence()
    _under_way.add(reported)
    presence.begin()
    try:
        _resolve(reported, await executor.carry_out(arrival, slot))
    except Exception as error:
        if reported.done():  # its caller is gone
            emit("internal_error", where="executor", error=repr(error), exc_info=error)
        else:
            reported.set_exception(error)
    finally:
        _under_way.discard(reported)
        presence.leave()
        reported.cancel()  # no-op unless the loop is ending and this task was cancelled


async def dispatch(*, every_seconds: float = 0) -> bool:
    """Make a dispatcher pass, for deployments without a worker, unless this process made one within `every_seconds`.

    Passes run in their own thread, whose connection outlives the request. Requests that arrive during a pass share the
    next one. Returns False if the last pass failed.
    """
    if _dispatcher is None or _dispatcher.seconds_since_pass() >= every_seconds:
        passed = asyncio.get_running_loop().create_future()
        if _passes.put((every_seconds, passed)):
            await passed
    return _dispatcher is not None and _dispatcher.is_well


def _pass(requests: Sequence[tuple[float, asyncio.Future[None]]]) -> None:
    global _dispatcher
    try:
        if _dispatcher is None:
            _dispatcher = Dispatcher(on_pass=_passed)
        every_seconds = min(every_seconds for every_seconds, _ in requests)
        if every_seconds == 0:  # POST tasks-beat, which comes each minute
            _dispatcher.pass_while_busy()
        elif _dispatcher.seconds_since_pass() >= every_seconds:
            _dispatcher.pass_once()
    finally:
        for _, passed in requests:
            with suppress(RuntimeError):  # the request's loop was closed
                passed.get_loop().call_soon_threadsafe(_resolve, passed)


def _passed() -> None:
    presence = web_presence()
    presence.dispatched()
    presence.show()


def web_presence() -> Presence:
    """Return this web process's presence among the workers; after a fork it is another one."""
    global _presence
    if _presence is None or _presence[0] != os.getpid():
        config = get_config()
        names, concurrency = [queue.name for queue in config.push_queues], config.settings.concurrency
        presence = Presence(
            WorkerRole.WEB, queues=names, concurrency=concurrency, running=lambda: len(_under_way.copy())
        )
        _presence = os.getpid(), presence
    return _presence[1]


def _resolve(future: asyncio.Future[Any], answer: Any = None) -> None:
    if not future.done():
        future.set_result(answer)


_passes: BatchThread[tuple[float, asyncio.Future[None]]] = BatchThread(
    "i3tasks-passes",
    _pass,
    max_batch=MOST_REQUESTS,
    max_queued=MOST_REQUESTS,
    idle_seconds=lambda: 2 * PASS_EVERY_SECONDS if idle_seconds() else 0.0,
    on_end=connections.close_all,
)


def _engine() -> Engine:
    loop = asyncio.get_running_loop()
    if loop not in _engines:
        _close_ended()
        reset_signals_in_children()
        engine = _engines[loop] = make_engine(worker_id=web_presence().worker_id)
        # An empty context: no body gets a request's language, log fields and database thread.
        contextvars.Context().run(engine.pool.open, _Tasks())
    return _engines[loop]


class _Tasks:
    """The tasks of a pool. They end with their loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself refers to its tasks only weakly

    def start_soon(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.get_running_loop().create_task(function())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _close_ended() -> None:
    """Close the engines of closed loops. Under WSGI each request has its own loop, which no thread should outlive."""
    for loop in list(_engines):
        if loop.is_closed() and (engine := _engines.pop(loop, None)) is not None:
            engine.pool.close()

"""Writes calls: in the caller's transaction; those of many coroutines outside of any transaction in one of their own.

`awrite` is group commit for the coroutines of one event loop. `sync_to_async` would run their calls one by one in one
thread, each in a transaction of its own; here the calls that came while the thread was busy are written together.
When such a transaction fails, its calls are halved until those that caused it fail alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Hashable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from asgiref.sync import AsyncToSync, SyncToAsync, sync_to_async
from django.db import InterfaceError, OperationalError

from ..core.clock import current_clock
from ..engine.launch import launch
from ..store.database import alias, in_transaction, is_contention
from ..store.enqueue import Enqueued, NewExecution, enqueue
from .handles import ChainHandle
from .results import Written

Handle = ChainHandle[Any]

MAXIMUM_BATCH = 500
"""Calls of one transaction. Other work of its thread for coroutines waits until they are written."""


def write(calls: Sequence[NewExecution]) -> list[Handle]:
    """Write the calls as part of the caller's transaction, to be published after its commit. Returns their handles."""
    return _launched(enqueue(calls, now=current_clock().now())) if calls else []


def awrite(call: NewExecution) -> Awaitable[Handle]:
    """`write` for a coroutine's call that has no key; outside of transactions together with those of other coroutines.

    They share the thread and the connection that `sync_to_async` gives them, as without this function.
    """
    loop = asyncio.get_running_loop()
    places = _batches.get(loop) or _batches.setdefault(loop, {})
    # What `sync_to_async` chooses the thread by, and the database that the router chooses in this context.
    place = (getattr(AsyncToSync.executors, "current", None), SyncToAsync.thread_sensitive_context.get(None), alias())
    batches = places.get(place) or places.setdefault(place, _Batches(places, place))
    return batches.put(_Waiting(call, loop.create_future()))


def _launched(enqueued: Enqueued) -> list[Handle]:
    launch(enqueued.new)
    written = Written()
    try_of = enqueued.tries.__getitem__  # made when a handle is asked for it
    return [
        ChainHandle(partial(try_of, place), _written=written if enqueued.is_new(place) else None)
        for place in range(len(enqueued))
    ]


@dataclass(slots=True, eq=False)
class _Waiting:
    """A call whose coroutine waits for its handle."""

    call: NewExecution
    future: asyncio.Future[Handle]
    context: Context = field(default_factory=copy_context)

    def answer(self, answer: Handle | BaseException) -> None:
        if self.future.done():  # the coroutine was cancelled
            return
        if isinstance(answer, asyncio.CancelledError):
            self.future.cancel()
        elif isinstance(answer, BaseException):
            self.future.set_exception(answer)
        else:
            self.future.set_result(answer)


_Answers = list[tuple[_Waiting, Handle | Exception]]


class _Batches:
    """The calls for one thread and connection, written one batch after the other. Used in the thread of their loop."""

    def __init__(self, places: dict[Hashable, _Batches], place: Hashable) -> None:
        self._places, self._place = places, place
        self._waiting: list[_Waiting] = []
        self._batch: list[_Waiting] = []
        self._task: asyncio.Task[_Answers] | None = None

    async def put(self, item: _Waiting) -> Handle:
        self._waiting.append(item)
        if self._task is None:
            self._begin()
        try:
            return await item.future
        except asyncio.CancelledError:
            if self._task is not None and self._batch and all(other.future.cancelled() for other in self._batch):
                self._task.cancel()  # so that nothing is written if the thread has not begun
            raise

    def _begin(self) -> None:
        """Start the next batch, in the context of its first call. It takes what is put before its task runs, too."""
        first = self._waiting[0]
        self._task = first.future.get_loop().create_task(self._run(), context=first.context)
        self._task.add_done_callback(self._end)

    async def _run(self) -> _Answers:
        self._batch, self._waiting = self._waiting[:MAXIMUM_BATCH], self._waiting[MAXIMUM_BATCH:]
        return await sync_to_async(_write_all)(self._batch)

    def _end(self, task: asyncio.Task[_Answers]) -> None:
        batch, self._batch = self._batch, []
        self._waiting = [item for item in self._waiting if not item.future.done()]
        if self._waiting:
            self._begin()  # before the coroutines of this batch go on, so that the next one is written meanwhile
        else:
            self._task = None
            self._places.pop(self._place, None)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        for item, answer in task.result() if error is None else [(item, error) for item in batch]:
            item.answer(answer)


_batches: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, _Batches]] = WeakKeyDictionary()


def _write_all(items: Sequence[_Waiting]) -> _Answers:
    """Write the calls that are still wanted, so that each fails alone; inside an open transaction, one by one."""
    items = [item for item in items if not item.future.cancelled()]
    if in_transaction():
        return [(item, _alone(item.call)) for item in items]
    parts = _together([item.call for item in items])
    answers = [each for part in parts for each in (_launched(part) if isinstance(part, Enqueued) else part)]
    return list(zip(items, answers, strict=True))


def _alone(call: NewExecution) -> Handle | Exception:
    try:
        return write([call])[0]
    except Exception as error:
        return error


def _together(calls: Sequence[NewExecution]) -> list[Enqueued | list[Exception]]:
    """Write the calls in one transaction; if that fails, each half in one, and so on. Gives an error for each call."""
    try:
        return [enqueue(calls, now=current_clock().now())] if calls else []
    except Exception as error:
        if len(calls) == 1 or _is_outage(error):
            return [[error] * len(calls)]
    middle = len(calls) // 2
    return [*_together(calls[:middle]), *_together(calls[middle:])]


def _is_outage(error: Exception) -> bool:
    """Whether the database gave no answer: the transaction may even have been committed, and others would wait, too."""
    return isinstance(error, OperationalError | InterfaceError) and not is_contention(error)

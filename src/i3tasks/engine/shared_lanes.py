"""Lanes that coroutines share for their ORM calls, one call at a time.

A lane is a thread with its own database connections. A coroutine gets one for each ORM call and gives it back after
the call, so five hundred sleeping coroutines need no thread and no connection. While a connection of the lane is in a
transaction, or has session state, no other coroutine may use the lane.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from django.db import OperationalError

from ..telemetry import emit
from ..threads.connections import close_dead
from .connections import clean, holds_state, tidy
from .forked import end_child
from .lanes import Lane
from .session_state import is_any_in_doubt, settle_doubts

SEEN_AFTER_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0


class SharedLane(Executor):
    """The executor of one coroutine's ORM calls: each runs on a free lane, preferably the lane of the last call."""

    def __init__(self, lanes: SharedLanes) -> None:
        self._lanes = lanes
        self.lane: _Place | None = None
        self.has_ended = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        call = _Call(self, lambda: fn(*args, **kwargs))
        self._lanes.put(call)
        return call.future

    async def left_open(self) -> bool:
        """Give the lane back if the coroutine still holds one. Return whether it had left a transaction open."""
        if self.lane is None or self.lane.owner is not self:
            return False
        return bool(await asyncio.wrap_future(self.submit(clean)))

    def release(self) -> None:
        """Give the lane up for good, as soon as the coroutine's last call has ended."""
        self._lanes.end(self)


@dataclass(slots=True, eq=False)
class _Call:
    user: SharedLane
    function: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)
    is_seen: bool = False

    def is_wanted(self) -> bool:
        """Whether the caller still waits. From then on, it can't cancel the call."""
        return self.future.running() or self.future.set_running_or_notify_cancel()


@dataclass(slots=True, eq=False)
class _Place:
    """A lane with the call that it runs and the coroutine that it is reserved for."""

    lane: Lane
    call: _Call | None = None
    owner: SharedLane | None = None
    last: SharedLane | None = None  # the user of the last call
    doubted: SharedLane | None = None  # the same, if that call may have set session state

    @property
    def is_free(self) -> bool:
        return self.call is None and self.owner is None

    @property
    def is_unused(self) -> bool:
        """Whether the lane is free and was last used by a coroutine that has ended, or never."""
        return self.is_free and (self.last is None or self.last.has_ended)


class SharedLanes:
    """Up to `size` lanes for the ORM calls of coroutines, created when needed."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._lock = threading.Lock()
        self._places: list[_Place] = []
        self._waiting: list[_Call] = []
        self._moved_at = time.monotonic()  # when a call last began or ended
        self._is_reviewing = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def put(self, call: _Call) -> None:
        """Run the call as soon as a lane is free for it. Never blocks."""
        self._loop = asyncio.get_running_loop()
        with self._lock:
            self._waiting.append(call)
            self._begin()
        self._review_later()

    def end(self, user: SharedLane) -> None:
        """Take the lane from a user whose body has ended."""
        with self._lock:
            user.has_ended = True
            place = user.lane
            if place is not None and place.last is user and place.call is None:
                self._start(place, _Call(user, tidy))

    def close(self) -> None:
        """Close the connections and end the threads, each after the call that it is running."""
        for place in self._places:
            place.lane.shutdown()
        self._places.clear()

    def _begin(self) -> None:
        """Start the waiting calls that have a lane, in their order. The lock must be held."""
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            place = self._place_for(call.user)
            if place is None:
                self._waiting.append(call)
            elif call.is_wanted():
                self._start(place, call)

    def _place_for(self, user: SharedLane) -> _Place | None:
        last = user.lane
        if last is not None and user in (last.owner, last.doubted, last.call and last.call.user):
            return None if last.call is not None else last
        if last is not None and last.is_free:
            return last
        unused = next((place for place in self._places if place.is_unused), None)
        if unused is None and len(self._places) < self._size:
            unused = _Place(Lane(f"{self._name}-{len(self._places)}"))
            self._places.append(unused)
        free = (place for place in self._places if place.is_free)
        return unused or min(free, key=lambda place: place.doubted is not None, default=None)

    def _start(self, place: _Place, call: _Call) -> None:
        last = place.last
        place.call, place.last, call.user.lane = call, call.user, place
        self._moved_at = time.monotonic()
        place.lane.submit(self._run, place, call, last)

    def _run(self, place: _Place, call: _Call, last: SharedLane | None) -> None:
        """Run the call, in the lane's thread. `last` is the user of the lane's last call."""
        here, result, error, is_held = os.getpid(), None, None, False
        try:
            if last is not call.user and not self._hand_over(place, call, last):
                return
            if place.owner is None:
                close_dead()
            result = call.function()
        except BaseException as raised:
            error = raised
        end_child(here, error)
        if call.user.has_ended:
            tidy()
        else:
            is_held = holds_state()
        with self._lock:
            place.call, place.owner = None, call.user if is_held else None
            place.doubted = call.user if is_any_in_doubt() else None
            self._moved_at = time.monotonic()
            self._begin()
        if call.future.cancelled():
            return
        if error is None:
            call.future.set_result(result)
        elif isinstance(error, StopIteration):  # no coroutine can be given one: before Python 3.12 it would never wake
            stopped = RuntimeError("The function raised StopIteration.")
            stopped.__cause__ = error
            call.future.set_exception(stopped)
        else:
            call.future.set_exception(error)

    def _hand_over(self, place: _Place, call: _Call, last: SharedLane | None) -> bool:
        """Make the lane ready for another user. False: it still belongs to the last one, and the call waits again."""
        is_held = False
        if place.doubted is not None and not place.doubted.has_ended:
            settle_doubts(has_ended=False)
            is_held = holds_state()
        with self._lock:
            place.doubted = None
            is_next = last is None or last.has_ended
            if is_held and not is_next:
                place.call, place.last, place.owner, call.user.lane = None, last, last, None
                self._waiting.insert(0, call)
            self._begin()
        if is_held and not is_next:
            self._call_in_loop(self._review_later)
            return False
        if is_next:
            tidy()
        return True

    def _call_in_loop(self, function: Callable[[], None]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(function)

    def _review_later(self) -> None:
        """Check the waiting calls after a while: a long wait is reported as an event, and has an end."""
        if self._waiting and not self._is_reviewing:
            self._is_reviewing = True
            asyncio.get_running_loop().call_later(SEEN_AFTER_SECONDS, self._review)

    def _review(self) -> None:
        self._is_reviewing = False
        now = time.monotonic()
        with self._lock:
            held = sum(place.owner is not None for place in self._places)
            is_stuck = held and now - self._moved_at >= LONGEST_WAIT_SECONDS
            unseen = [call for call in self._waiting if not call.is_seen and now - call.since >= SEEN_AFTER_SECONDS]
            for call in unseen:
                call.is_seen = True
            given_up = [call for call in self._waiting if is_stuck and now - call.since >= LONGEST_WAIT_SECONDS]
            self._waiting = [call for call in self._waiting if call not in given_up]
        if unseen:
            emit("lane_awaited", calls=len(unseen), lanes=len(self._places), in_transactions=held)
        for call in given_up:
            if call.is_wanted():
                call.future.set_exception(_waited_in_vain(held, self._size))
        self._review_later()


def _waited_in_vain(held: int, size: int) -> OperationalError:
    return OperationalError(
        f"Waited {LONGEST_WAIT_SECONDS:g} seconds for a database lane: {held} of {size} are inside the transactions of "
        "other coroutines. Make those shorter, await nothing but the database in them, or raise database_lanes."
    )

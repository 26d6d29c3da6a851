"""Threads that keep their database connection from one body to the next.

A sync body has a lane to itself. A coroutine takes one at its first ORM call, so that five hundred sleeping
coroutines need no thread and no connection; when all lanes are taken, coroutines share them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from django.db import close_old_connections, connections

from .connections import tidy


class Lane(Executor):
    """One thread that runs one call at a time. A daemon: a body that never ends can't keep the process alive."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self.users = 0
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._calls.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            if future.set_running_or_notify_cancel():
                _resolve(future, function)
            del call, future, function
        connections.close_all()


def _resolve(future: Future[Any], function: Callable[[], Any]) -> None:
    try:
        result = function()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


class Lanes:
    """Up to `size` lanes, made when needed."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._lanes: list[Lane] = []

    def acquire(self) -> Lane:
        """The least used lane; a new one rather than a shared one, while there may be more."""
        lane = min(self._lanes, key=lambda lane: lane.users, default=None)
        if lane is None or (lane.users and len(self._lanes) < self._size):
            lane = Lane(f"{self._name}-{len(self._lanes)}")
            self._lanes.append(lane)
        if lane.users == 0:
            lane.submit(close_old_connections)
        lane.users += 1
        return lane

    def release(self, lane: Lane) -> None:
        """Give a lane back. Its connection stays open for the next body, if it is still good."""
        lane.users -= 1
        lane.submit(close_old_connections if lane.users else tidy)

    def close(self) -> None:
        """Close the connections and end the threads, each after the call that it is in."""
        for lane in self._lanes:
            lane.shutdown()
        self._lanes.clear()


class LazyLane(Executor):
    """What a coroutine's ORM calls run on: a lane that is acquired at the first of them."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._lane: Lane | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._lane is None:
            self._lane = self._lanes.acquire()
        return self._lane.submit(fn, *args, **kwargs)

    def release(self) -> None:
        if self._lane is not None:
            self._lanes.release(self._lane)
            self._lane = None

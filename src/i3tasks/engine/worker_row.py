"""This process among the workers: the row that tells others that it lives, and what it does.

A worker and the commands `beat` and `dispatch` write theirs with every heartbeat, in the writer's thread, whether they
hold a lease or not. A web process, which may get no processor time between two requests, does so while it runs tries,
and when a request comes.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..broker.publisher import get_publisher
from ..conf import get_config
from ..core.clock import current_clock
from ..models import WorkerRole, WorkerState
from ..store.operations import NOTE_WORKER
from ..store.workers import WorkerFacts
from .gateway import writer


class Presence:
    """The row of this process. Every method may be called from any thread."""

    def __init__(
        self,
        role: WorkerRole,
        *,
        worker_id: str | None = None,
        queues: Sequence[str] = (),
        concurrency: int = 0,
        running: Callable[[], int] = lambda: 0,
        trouble: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.worker_id = worker_id or new_worker_id()
        self._role = role
        self._queues = queues
        self._concurrency = concurrency
        self._running = running
        self._trouble = trouble  # of receiving; that of publishing is known here
        self._lock = threading.Lock()
        self._state = WorkerState.RUNNING
        self._is_new = True
        self._passed: set[str] = set()  # the columns of passes that no heartbeat has told of yet
        self._telling: set[str] = set()  # those that the heartbeat under way tells of
        self._busy = 0
        self._noted_at = float("-inf")
        self._cancel: Callable[[], None] | None = None  # the next heartbeat

    def facts(self) -> WorkerFacts:
        """The facts that a heartbeat writes. Called in the writer's thread, again if the database did not take it."""
        with self._lock:
            self._telling |= self._passed
            self._passed.clear()
            return WorkerFacts(
                id=self.worker_id,
                role=self._role,
                state=self._state,
                host=socket.gethostname()[:255],
                pid=os.getpid(),
                version=_version(),
                release=get_config().settings.release or "",
                queues=self._queues,
                concurrency=self._concurrency,
                running=self._running(),
                is_new=self._is_new,
                passed=frozenset(self._telling),
                trouble=self._trouble() or get_publisher().fresh_trouble or "",
            )

    def begin(self) -> None:
        """Write the row now, unless it was written lately, and with every heartbeat until `leave` or `end`."""
        with self._lock:
            self._busy += 1
            if self._cancel is None:
                self._beat_after(self._due_in())

    def leave(self) -> None:
        """Take one `begin` back."""
        with self._lock:
            self._busy -= 1
            if not self._busy:
                self._stop_beating()
                if self._passed:
                    self._beat_after(0)

    def drain(self) -> None:
        """Write that no new try is begun."""
        self._write(WorkerState.DRAINING)

    def end(self) -> None:
        """Write that the process has stopped, for the last time."""
        self._write(WorkerState.STOPPED)

    def dispatched(self) -> None:
        """Note that a pass of the dispatcher got through."""
        with self._lock:
            self._passed.add("dispatched_at")

    def beaten(self) -> None:
        """Note that a pass of the beat got through."""
        with self._lock:
            self._passed.add("beat_at")

    def show(self) -> None:
        """Write the row, unless it was written lately and is complete: for a process whose heartbeat pauses."""
        with self._lock:
            if self._cancel is None and (self._passed or not self._due_in()):
                self._beat_after(0)

    def _write(self, state: WorkerState) -> None:
        with self._lock:
            self._state = state
            if state == WorkerState.STOPPED:
                self._busy = 0
            self._stop_beating()
            self._beat_after(0)

    def _due_in(self) -> float:
        every = get_config().settings.heartbeat_seconds
        return max(0.0, min(self._noted_at + every - current_clock().monotonic(), every))

    def _beat_after(self, seconds: float) -> None:
        self._cancel = writer.later(seconds, NOTE_WORKER, self, self._written)

    def _stop_beating(self) -> None:
        if self._cancel is not None:
            self._cancel()
            self._cancel = None

    def _written(self, answer: Any) -> None:
        """Go on after a heartbeat, whether it was written or not. Called in the writer's thread."""
        with self._lock:
            if not isinstance(answer, Exception):
                self._is_new = False
                self._telling.clear()
                self._noted_at = current_clock().monotonic()
            self._cancel = None
            if self._busy:
                self._beat_after(get_config().settings.heartbeat_seconds)


def new_worker_id() -> str:
    """Return a name for this process in the rows: its host, its process id, and a part that no other process has."""
    return f"{socket.gethostname()[:200]}:{os.getpid()}:{current_clock().new_uuid7().hex[-8:]}"


def passing_by(role: WorkerRole) -> Presence:
    """Return the presence of a command that makes one pass and ends. All of a host share one row."""
    return Presence(role, worker_id=f"{socket.gethostname()[:200]}:{role.value}")


@cache
def _version() -> str:
    try:
        return version("i3tasks")
    except PackageNotFoundError:  # a copy of the sources that was not installed
        return "unknown"

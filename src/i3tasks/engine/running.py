"""The tries that this process runs right now, and the heartbeat that keeps their leases.

The heartbeat beats in the writer's thread, so a body that blocks the event loop does not lose its neighbours' leases.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID

from ..conf import get_config
from ..exceptions import LeaseLost, TaskCancelled
from ..metadata import TaskMetadata
from ..registry import TaskSpec
from ..store.refs import Claimed, Renewed
from ..store.writer import RENEW, Writer
from ..telemetry import emit


class HandedBack(Exception):
    """The worker is ending, and this try goes to another one, as if it had never been claimed."""


@dataclass(slots=True, eq=False)
class Run:
    """One try being run: its lease, and the way to stop its body."""

    claimed: Claimed
    cancelled: threading.Event = field(default_factory=threading.Event)
    reason: BaseException | None = None
    body: asyncio.Task[object] | None = None
    stopped: asyncio.Future[None] | None = None  # done once the body was told to end

    def stop(self, reason: BaseException) -> None:
        """Cancel a coroutine; let a sync body's `is_cancelled()` turn true. Call on the loop that runs it."""
        if self.reason is None:
            self.reason = reason
            self.cancelled.set()
            if self.body is not None:
                self.body.cancel()
            if self.stopped is not None and not self.stopped.done():
                self.stopped.set_result(None)


class Running:
    """All runs of one event loop."""

    def __init__(self, writer: Writer, *, lease_seconds: float, heartbeat_seconds: float | None) -> None:
        self._writer = writer
        self._lock = threading.Lock()  # between the loop and the writer's thread
        self._runs: dict[int, Run] = {}
        self._heartbeat_seconds = heartbeat_seconds
        self._stop_beating: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped_for: BaseException | None = None
        self.lease_seconds = lease_seconds

    @property
    def leases(self) -> dict[int, UUID]:
        """What the next heartbeat renews."""
        return {try_id: run.claimed.token for try_id, run in self._runs.copy().items()}

    @contextmanager
    def hold(self, claimed: Claimed) -> Iterator[Run]:
        """Keep the lease alive while the block runs."""
        run = Run(claimed, reason=self._stopped_for)
        with self._lock:
            self._runs[claimed.try_id] = run
            if self._stop_beating is None:
                self._loop = asyncio.get_running_loop()
                self._beat_later()
        try:
            yield run
        finally:
            with self._lock:
                self._runs.pop(claimed.try_id, None)
                if not self._runs and self._stop_beating is not None:
                    self._stop_beating()
                    self._stop_beating = None

    def stop_all(self, reason: BaseException) -> None:
        """Stop every run, and each that begins from now on."""
        self._stopped_for = reason
        for run in list(self._runs.values()):
            run.stop(reason)

    def _beat_later(self) -> None:
        if self._heartbeat_seconds is not None:
            self._stop_beating = self._writer.later(self._heartbeat_seconds, RENEW, self, self._answered)

    def _answered(self, answer: Renewed | Exception) -> None:
        """In the writer's thread."""
        with self._lock:
            self._stop_beating = None
            if self._runs:
                self._beat_later()
        if isinstance(answer, Renewed) and (answer.lost or answer.cancelled) and self._loop is not None:
            with suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._stop, answer)

    def _stop(self, renewed: Renewed) -> None:
        for try_id in renewed.lost & self._runs.keys():
            run = self._runs[try_id]
            if run.body is not None and run.body.done():
                continue  # settled just now, or about to hear from the settlement that it is stale
            emit("lease_lost", try_id=try_id)
            run.stop(LeaseLost())
        for try_id in renewed.cancelled & self._runs.keys():
            self._runs[try_id].stop(TaskCancelled())


def metadata_of(spec: TaskSpec, run: Run) -> TaskMetadata:
    """What a body declared with `bind=True` is told."""
    claimed = run.claimed
    return TaskMetadata(
        task_path=claimed.module_name,
        task_name=claimed.func_name,
        task_execution_id=claimed.execution_id,
        task_execution_try_id=claimed.try_id,
        task_uuid=claimed.execution_uuid,
        try_number=claimed.try_number,
        max_retries=spec.policy(claimed.overrides).max_retries,
        queue_name=claimed.queue_name or get_config().settings.default_queue.queue_name,
        _cancelled=run.cancelled,
    )

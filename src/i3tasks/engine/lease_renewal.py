"""The tries that this process is running, and the heartbeat that renews their leases.

The heartbeat runs in the writer's thread and renews a lease from the commit of its claim on. So a body that blocks the
event loop costs no other try its lease, whether that try is running or about to start.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ..conf import queue_or_default
from ..core.clock import SYSTEM_CLOCK, Clock
from ..exceptions import LeaseLost, TaskCancelled
from ..metadata import TaskMetadata
from ..registry import TaskSpec
from ..store.operations import NOTE_STACK, RENEW
from ..store.requests import Claimed, Refusal, Renewed, scheduled_by, slot_of
from ..store.stacks import TakenStack
from ..store.writer import Writer
from ..telemetry import emit
from ..telemetry.propagation import travels_now

if TYPE_CHECKING:
    from .bodies import BodyEnding


class HandedBack(Exception):
    """Stops a run because its worker is ending. The try goes to another worker and uses up no retry."""


@dataclass(slots=True, eq=False)
class Run:
    """A try that is being run: its lease, and the means to stop its body."""

    claimed: Claimed
    reason: BaseException | None = None
    ending: BodyEnding | None = None  # of its body, once that has begun
    stack: Callable[[], str] | None = None  # where the body is, once it has begun; may be called in any thread
    _cancelled: threading.Event | None = None

    @property
    def is_stopped(self) -> bool:
        return self.reason is not None

    @property
    def cancelled(self) -> threading.Event:
        """The event that the body's `is_cancelled()` looks at. Made when it is asked for: few bodies look."""
        if self._cancelled is None:
            self._cancelled = threading.Event()
            if self.reason is not None:
                self._cancelled.set()
        return self._cancelled

    def stop(self, reason: BaseException) -> None:
        """Cancel a coroutine, or make a sync body's `is_cancelled()` true. Call this on the loop that runs the try."""
        if self.reason is None:
            self.reason = reason
            if self._cancelled is not None:
                self._cancelled.set()
            if self.ending is not None:
                self.ending.hurry()

    def let_go(self) -> None:
        """Forget the body, whose task refers to this run: the cycle would wait for the garbage collector."""
        self.ending = self.stack = None


@dataclass(slots=True)
class _Expected:
    """A lease whose claim is committed, but not known to the event loop yet."""

    token: UUID
    renewed_at: float  # monotonic


class Running:
    """All runs of one event loop."""

    def __init__(
        self,
        writer: Writer,
        *,
        lease_seconds: float,
        heartbeat_seconds: float | None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._clock = clock
        self._writer = writer
        self._lock = threading.Lock()  # between the loop and the writer's thread
        self._runs: dict[int, Run] = {}
        self._expected: dict[int, _Expected] = {}  # claimed, but not known to the loop yet
        self._is_told_of_claims = False
        self._heartbeat_seconds = heartbeat_seconds
        self._stop_beating: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped_for: BaseException | None = None
        self.lease_seconds = lease_seconds

    @property
    def leases(self) -> dict[int, UUID]:
        """The leases that the next heartbeat renews: the claim token of each try."""
        expected = {try_id: expected.token for try_id, expected in self._expected.copy().items()}
        return expected | {try_id: run.claimed.token for try_id, run in self._runs.copy().items()}

    def expect(self, answer: Claimed | Refusal) -> None:
        """Renew a lease from its commit on, until `hold` or `forget`. Called in the writer's thread."""
        if isinstance(answer, Claimed):
            with self._lock:
                self._is_told_of_claims = True
                self._expected[answer.try_id] = _Expected(answer.token, self._clock.monotonic())
                if self._stop_beating is None:
                    self._beat_later()

    def forget(self, try_id: int) -> None:
        """Renew the lease of an expected try no longer: no `hold` will follow."""
        with self._lock:
            self._expected.pop(try_id, None)

    def hold(self, claimed: Claimed) -> _Held:
        """Renew the lease while a block runs. A run whose lease may have expired is stopped before it begins."""
        return _Held(self, claimed)

    def begin(self, claimed: Claimed) -> Run:
        """Renew the lease from now on, until `end`."""
        with self._lock:
            expected = self._expected.pop(claimed.try_id, None)
            run = Run(claimed, reason=self._stopped_for or self._reason_not_to_start(expected))
            self._runs[claimed.try_id] = run
            self._loop = asyncio.get_running_loop()
            if self._stop_beating is None:
                self._beat_later()
        return run

    def end(self, run: Run) -> None:
        """Renew the lease no more."""
        run.let_go()
        with self._lock:
            self._runs.pop(run.claimed.try_id, None)
            if not self._runs and not self._expected and self._stop_beating is not None:
                self._stop_beating()
                self._stop_beating = None

    def stop_all(self, reason: BaseException) -> None:
        """Stop every run, including those that begin later."""
        self._stopped_for = reason
        for run in list(self._runs.values()):
            run.stop(reason)

    def _reason_not_to_start(self, expected: _Expected | None) -> BaseException | None:
        """Return HandedBack if the lease may have expired, so that another worker may have run the try, else None."""
        if not self._is_told_of_claims or self._heartbeat_seconds is None:
            return None
        at_most = self.lease_seconds - self._heartbeat_seconds
        is_sure = expected is not None and self._clock.monotonic() - expected.renewed_at < at_most
        return None if is_sure else HandedBack()

    def _beat_later(self) -> None:
        if self._heartbeat_seconds is not None:
            self._stop_beating = self._writer.later(self._heartbeat_seconds, RENEW, self, self._answered)

    def _answered(self, answer: Renewed | Exception) -> None:
        """Handle the answer to a heartbeat. Called in the writer's thread."""
        with self._lock:
            self._stop_beating = None
            if isinstance(answer, Renewed):
                self._note_expected(answer)
            if self._runs or self._expected:
                self._beat_later()
        if isinstance(answer, Renewed) and answer.stacks:
            self._tell_stacks(answer.stacks)
        if isinstance(answer, Renewed) and (answer.lost or answer.cancelled) and self._loop is not None:
            with suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon_threadsafe(self._stop, answer)

    def _tell_stacks(self, try_ids: frozenset[int]) -> None:
        """Take the stacks that are asked for, in a thread of its own: the writer's has leases to renew."""
        runs = [run for try_id, run in self._runs.copy().items() if try_id in try_ids]
        if runs:
            threading.Thread(target=self._take_stacks, args=(runs,), name="i3tasks-stacks", daemon=True).start()

    def _take_stacks(self, runs: list[Run]) -> None:
        for run in runs:
            text = ""
            with suppress(Exception):  # the body has ended meanwhile
                text = "" if run.stack is None else run.stack()
            self._writer.post(NOTE_STACK, TakenStack(run.claimed.try_id, text))

    def _note_expected(self, renewed: Renewed) -> None:
        for try_id in renewed.lost & self._expected.keys():
            del self._expected[try_id]
        for try_id in renewed.renewed & self._expected.keys():
            self._expected[try_id].renewed_at = self._clock.monotonic()

    def _stop(self, renewed: Renewed) -> None:
        for try_id in renewed.lost & self._runs.keys():
            run = self._runs[try_id]
            if run.ending is not None and run.ending.has_come:
                continue  # already settled, or its settlement will find that it is stale
            emit("lease_lost", **run.claimed.facts)
            run.stop(LeaseLost())
        for try_id in renewed.cancelled & self._runs.keys():
            self._runs[try_id].stop(TaskCancelled())


class _Held:
    """The block of `Running.hold`. A generator would take three times as long."""

    __slots__ = ("_claimed", "_run", "_running")

    def __init__(self, running: Running, claimed: Claimed) -> None:
        self._running = running
        self._claimed = claimed

    def __enter__(self) -> Run:
        self._run = self._running.begin(self._claimed)
        return self._run

    def __exit__(self, *_: object) -> None:
        self._running.end(self._run)


def metadata_of(spec: TaskSpec, run: Run) -> TaskMetadata:
    """Return the `task_metadata` of a body declared with `bind=True`."""
    claimed = run.claimed
    travels = travels_now() or {}
    return TaskMetadata(
        task_path=claimed.module_name,
        task_name=claimed.func_name,
        task_execution_id=claimed.execution_id,
        task_execution_try_id=claimed.try_id,
        task_uuid=claimed.execution_uuid,
        try_number=claimed.try_number,
        max_retries=spec.policy(claimed.overrides).max_retries,
        queue_name=queue_or_default(claimed.queue_name),
        headers=_part(travels, "headers"),
        context=_part(travels, "context"),
        traceparent=travels.get("traceparent"),
        run_after=None if claimed.due_since == claimed.asked_at else claimed.due_since,
        schedule=scheduled_by(claimed.overrides).get("schedule"),
        slot=slot_of(claimed.overrides),
        _cancelled=run.cancelled,
    )


def _part(travels: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = travels.get(name)
    return part if isinstance(part, dict) else {}

"""A worker: receivers, pool, dispatcher and beat in one task group, until it is asked to stop.

The first signal begins the drain: no new try starts, running ones may finish, and those that do not finish in time are
handed back, which uses up no retry. A second signal, one second later or more, ends the process at once; its leases
expire.
"""

from __future__ import annotations

import _thread
import asyncio
import math
import os
import queue
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import FrameType

import anyio
from anyio.abc import TaskGroup

from ..broker.provisioning import ensure_at_start
from ..broker.receiver import Incoming
from ..conf import QueueNames, get_config
from ..exceptions import BrokerError
from ..models import WorkerRole
from ..store.operations import PUT_BACK
from ..store.requests import TryRef
from ..telemetry import emit
from ..threads.forking import SAME_SIGNAL_SECONDS, signals_heard
from ..types import DatabaseQueue
from .assembly import Engine, make_engine
from .beat import Beat
from .dispatcher import Dispatcher
from .executor import Arrival, Executor
from .fallback import Fallback, QueueSource
from .gateway import writer
from .lease_renewal import HandedBack
from .pool import Slot
from .receiving import QueueReceiver
from .report import Report, Verdict
from .until_empty import until_empty
from .worker_row import Presence, new_worker_id

EXIT_BROKEN = 75
"""The exit code of a worker whose Pub/Sub client keeps breaking: EX_TEMPFAIL, which asks for a restart."""
HAND_BACK_SECONDS = 5.0  # for the rest of a drain: settlements, acks, connections
LIVENESS_SECONDS = 5.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LAST_WORDS_SECONDS = 1.0  # for the event of an end at once

Answer = Callable[[Verdict], None]


class Worker:
    """Runs the tries of the given queues, up to `concurrency` at a time."""

    def __init__(
        self,
        queues: Sequence[QueueNames],
        *,
        concurrency: int,
        threads: int,
        streams: int = 1,
        max_tasks: int | None = None,
        liveness_file: Path | None = None,
        worker_id: str | None = None,
        until_empty: bool = False,
    ) -> None:
        self._queues = queues
        self._worker_id = worker_id or new_worker_id()
        self._tasks_left = max_tasks
        self._liveness_file = liveness_file
        self._concurrency = concurrency
        self._threads = threads
        self._streams = streams
        self._stop_asked = anyio.Event()
        self._signalled_at: float | None = None
        self._idle = anyio.Event()
        self._under_way = 0
        self._begun = 0
        self._ends_when_empty = until_empty
        self._receivers: list[QueueReceiver] = []
        self.exit_code = 0

    def stop(self) -> None:
        """Begin to drain. Call this on the worker's event loop."""
        self._stop_asked.set()

    async def run(self) -> None:
        """Work until `stop`, SIGINT, SIGTERM or SIGHUP. Returns when the drain has ended."""
        engine = make_engine(concurrency=self._concurrency, threads=self._threads, worker_id=self._worker_id)
        presence = self._presence(engine)
        receivers = [
            QueueReceiver(names, max_messages=self._concurrency, count=self._streams)
            for names in self._queues
            if names.subscription
        ]
        self._receivers = receivers
        with self._heeding_signals():
            async with anyio.create_task_group() as tasks:
                engine.pool.open(tasks)
                presence.begin()
                tasks.start_soon(Beat(presence.beaten).run)
                tasks.start_soon(Dispatcher(on_pass=presence.dispatched).run)
                tasks.start_soon(self._show_life)
                tasks.start_soon(self._receive, tasks, engine, receivers)
                tasks.start_soon(self._fall_back, engine, receivers)
                if self._ends_when_empty:
                    tasks.start_soon(self._end_when_empty)
                emit("worker_started", queues=[names.name for names in self._queues], concurrency=self._concurrency)
                await self._stop_asked.wait()
                await self._drain(engine, receivers, presence)
                tasks.cancel_scope.cancel()
        engine.pool.close()
        emit("worker_stopped")

    def _presence(self, engine: Engine) -> Presence:
        return Presence(
            WorkerRole.WORKER,
            worker_id=self._worker_id,
            queues=[names.name for names in self._queues],
            concurrency=self._concurrency,
            running=lambda: len(engine.running.leases),
            trouble=lambda: next(filter(None, (receiver.trouble for receiver in self._receivers)), None),
        )

    async def _receive(self, tasks: TaskGroup, engine: Engine, receivers: Sequence[QueueReceiver]) -> None:
        await self._provision()
        for receiver in receivers:
            tasks.start_soon(self._receive_from, receiver, partial(self._deliver, engine))

    async def _receive_from(self, receiver: QueueReceiver, deliver: Callable[[Incoming], None]) -> None:
        """Receive until the worker stops. A client that keeps breaking ends the worker, so that it gets restarted."""
        try:
            await receiver.run(deliver)
        except BrokerError as error:
            emit("receiver_given_up", queue=receiver.names.name, error=str(error))
            self.exit_code = EXIT_BROKEN
            self.stop()

    def _deliver(self, engine: Engine, incoming: Incoming) -> None:
        arrival = engine.executor.read(incoming.delivery)
        answer = partial(_answer_message, incoming)
        if isinstance(arrival, Report):
            answer(arrival.verdict)
        else:
            self._begin(engine, arrival, answer)

    async def _fall_back(self, engine: Engine, receivers: Sequence[QueueReceiver]) -> None:
        seconds = get_config().settings.fallback_seconds
        sources = [
            QueueSource(names.name, None, names.queue.poll_seconds)
            for names in self._queues
            if isinstance(names.queue, DatabaseQueue)
        ]
        if seconds is not None:
            sources += [
                QueueSource(receiver.names.name, receiver, topic=receiver.names.topic) for receiver in receivers
            ]
        if not sources:
            return
        patience = math.inf if seconds is None else seconds

        def begin(ref: TryRef) -> None:
            self._begin(engine, engine.executor.found(ref), partial(_answer_row, ref))

        await Fallback(sources, store=writer, room=lambda: engine.pool.room, begin=begin, seconds=patience).run()

    async def _end_when_empty(self) -> None:
        await until_empty([names.name for names in self._queues], lambda: None if self._under_way else self._begun)
        self.stop()

    def _begin(self, engine: Engine, arrival: Arrival, answer: Answer) -> None:
        """Let a task of the pool carry out one try, from its arrival to its answer."""
        self._under_way += 1
        self._begun += 1
        carry = partial(self._carry_out, engine.executor, arrival, answer)
        engine.pool.submit(arrival.spec, carry, partial(self._end, answer, Verdict.NACK))

    async def _carry_out(self, executor: Executor, arrival: Arrival, answer: Answer, slot: Slot) -> None:
        verdict = Verdict.NACK
        try:
            report = await executor.carry_out(arrival, slot)
            verdict = report.verdict
            if report.outcome is not None:
                self._count_down()
        except Exception as error:
            emit("internal_error", where="executor", error=repr(error), exc_info=error)
        finally:
            self._end(answer, verdict)

    def _end(self, answer: Answer, verdict: Verdict) -> None:
        """Answer a try. Answers are given nowhere else."""
        answer(verdict)
        self._under_way -= 1
        if self._stop_asked.is_set() and not self._under_way:
            self._idle.set()

    def _count_down(self) -> None:
        if self._tasks_left is not None:
            self._tasks_left -= 1
            if self._tasks_left <= 0:
                self.stop()

    async def _drain(self, engine: Engine, receivers: Sequence[QueueReceiver], presence: Presence) -> None:
        settings = get_config().settings
        emit("worker_draining", running=self._under_way, at_most_seconds=settings.drain_seconds)
        presence.drain()
        for receiver in receivers:
            receiver.stop()
        engine.pool.stop_admitting()
        if not await self._ended_within(settings.drain_seconds):
            engine.running.stop_all(HandedBack())
            await self._ended_within(HAND_BACK_SECONDS)
        async with anyio.create_task_group() as tasks:
            for receiver in receivers:
                tasks.start_soon(receiver.drain, HAND_BACK_SECONDS)
        presence.end()
        await anyio.to_thread.run_sync(writer.flush, HAND_BACK_SECONDS)

    async def _ended_within(self, seconds: float) -> bool:
        if self._under_way:
            with anyio.move_on_after(seconds):
                await self._idle.wait()
        return not self._under_way

    def _heeding_signals(self) -> AbstractContextManager[None]:
        """Handle the signals by Python's handlers, not the loop's, so that a second signal ends a blocked loop, too."""
        loop = asyncio.get_running_loop()

        def hear(number: int, _: FrameType | None) -> None:
            if self._signalled_at is None:
                self._signalled_at = time.monotonic()
                loop.call_soon_threadsafe(self.stop)
            elif time.monotonic() - self._signalled_at >= SAME_SIGNAL_SECONDS:
                _end_at_once(number)

        return signals_heard(hear, SIGNALS, with_echoes=True)

    async def _show_life(self) -> None:
        """Touch the liveness file, whose age a probe checks. A loop that hangs or a broken client lets it grow old."""
        while self._liveness_file is not None:
            try:
                if all(receiver.is_sound for receiver in self._receivers):
                    await anyio.to_thread.run_sync(self._liveness_file.touch)
            except OSError as error:  # the probe decides; the running tries are not affected
                emit("liveness_file_failed", error=str(error))
            await anyio.sleep(LIVENESS_SECONDS)

    async def _provision(self) -> None:
        """Create missing topics and subscriptions. An unavailable broker delays this and nothing else."""
        try:
            await anyio.to_thread.run_sync(ensure_at_start, get_config(), abandon_on_cancel=True)
        except BrokerError as error:
            emit("provisioning_failed", error=str(error))


def _end_at_once(number: int) -> None:
    """End the process by this signal. Another thread logs it: the interrupted code may hold a log's lock."""
    told: queue.SimpleQueue[None] = queue.SimpleQueue()

    def tell() -> None:
        try:
            emit("worker_killed", signal=signal.Signals(number).name)
        finally:
            told.put(None)

    try:
        _thread.start_new_thread(tell, ())
        told.get(timeout=LAST_WORDS_SECONDS)
    finally:
        os._exit(128 + number)


def _answer_message(incoming: Incoming, verdict: Verdict) -> None:
    if verdict is Verdict.ACK:
        incoming.ack()
    else:
        incoming.nack()


def _answer_row(ref: TryRef, verdict: Verdict) -> None:
    """Put a try that was not run back, for other workers: it came from the database and has no message to nack."""
    if verdict is Verdict.NACK:
        writer.post(PUT_BACK, ref)

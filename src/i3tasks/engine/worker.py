"""A worker: receivers, pool, dispatcher and beat in one task group, until it is asked to stop.

The first signal drains: nothing new is begun, what runs may end, what does not end in time is handed back without
using up a retry. A second signal ends the process at once; its leases run out by themselves.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import anyio
from anyio.abc import TaskGroup

from ..broker.provisioning import ensure_at_start
from ..broker.receiver import Incoming, Receiver
from ..conf import QueueNames, get_config
from ..dispatcher import Dispatcher
from ..exceptions import BrokerError
from ..store.writer import writer
from ..telemetry import emit
from .beat import Beat
from .executor import Verdict
from .process import Engine, make_engine
from .running import HandedBack

HAND_BACK_SECONDS = 5.0  # for what is left of a drain: settlements, acks, connections
LIVENESS_SECONDS = 5.0


class Worker:
    """Runs the tries of some pull queues, `concurrency` at a time."""

    def __init__(
        self,
        queues: Sequence[QueueNames],
        *,
        concurrency: int,
        threads: int,
        max_tasks: int | None = None,
        liveness_file: Path | None = None,
    ) -> None:
        self._queues = queues
        self._tasks_left = max_tasks
        self._liveness_file = liveness_file
        self._concurrency = concurrency
        self._threads = threads
        self._stop_asked = anyio.Event()
        self._signalled = False
        self._idle = anyio.Event()
        self._under_way = 0

    def stop(self) -> None:
        """Begin to drain. Call on the worker's loop."""
        self._stop_asked.set()

    async def run(self) -> None:
        """Work until `stop`, SIGINT or SIGTERM; returns when everything is answered for."""
        engine = make_engine(concurrency=self._concurrency, threads=self._threads)
        receivers = [Receiver(names, max_messages=self._concurrency) for names in self._queues]
        with self._heeding_signals():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Beat().run)
                tasks.start_soon(Dispatcher().run)
                tasks.start_soon(self._show_life)
                tasks.start_soon(self._receive, tasks, engine, receivers)
                emit("worker_started", queues=[names.name for names in self._queues], concurrency=self._concurrency)
                await self._stop_asked.wait()
                await self._drain(engine, receivers)
                tasks.cancel_scope.cancel()
        engine.pool.close()
        emit("worker_stopped")

    async def _receive(self, tasks: TaskGroup, engine: Engine, receivers: Sequence[Receiver]) -> None:
        await self._provision()
        for receiver in receivers:
            tasks.start_soon(receiver.run, lambda incoming: self._begin(tasks, engine, incoming))

    def _begin(self, tasks: TaskGroup, engine: Engine, incoming: Incoming) -> None:
        self._under_way += 1
        tasks.start_soon(self._carry_out, engine, incoming)

    async def _carry_out(self, engine: Engine, incoming: Incoming) -> None:
        """One message from its delivery to its answer. The only place that acks."""
        verdict, has_run = Verdict.NACK, False
        try:
            report = await engine.executor.execute(incoming.delivery)
            verdict, has_run = report.verdict, report.outcome is not None
        except Exception as error:
            emit("internal_error", where="executor", error=repr(error), exc_info=error)
        finally:
            if verdict is Verdict.ACK:
                incoming.ack()
            else:
                incoming.nack()
            self._under_way -= 1
            if has_run:
                self._count_down()
            if self._stop_asked.is_set() and not self._under_way:
                self._idle.set()

    def _count_down(self) -> None:
        if self._tasks_left is not None:
            self._tasks_left -= 1
            if self._tasks_left <= 0:
                self.stop()

    async def _drain(self, engine: Engine, receivers: Sequence[Receiver]) -> None:
        settings = get_config().settings
        emit("worker_draining", running=self._under_way, at_most_seconds=settings.drain_seconds)
        for receiver in receivers:
            receiver.stop()
        engine.pool.stop_admitting()
        if not await self._ended_within(settings.drain_seconds):
            engine.running.stop_all(HandedBack())
            await self._ended_within(HAND_BACK_SECONDS)
        async with anyio.create_task_group() as tasks:
            for receiver in receivers:
                tasks.start_soon(receiver.drain, HAND_BACK_SECONDS)
        await anyio.to_thread.run_sync(writer.flush, HAND_BACK_SECONDS)

    async def _ended_within(self, seconds: float) -> bool:
        if self._under_way:
            with anyio.move_on_after(seconds):
                await self._idle.wait()
        return not self._under_way

    @contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        """By the interpreter's handlers and not the loop's, so that a second signal ends a blocked loop, too."""
        loop = asyncio.get_running_loop()

        def hear(number: int, _: FrameType | None) -> None:
            if self._signalled:
                emit("worker_killed", signal=signal.Signals(number).name)
                os._exit(128 + number)
            self._signalled = True
            loop.call_soon_threadsafe(self.stop)

        before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    async def _show_life(self) -> None:
        """For probes that look at a file's age: a loop that hangs touches nothing."""
        while self._liveness_file is not None:
            try:
                await anyio.to_thread.run_sync(self._liveness_file.touch)
            except OSError as error:  # whoever looks at it decides; what runs need not suffer
                emit("liveness_file_failed", error=str(error))
            await anyio.sleep(LIVENESS_SECONDS)

    async def _provision(self) -> None:
        """Make what is missing in Pub/Sub. A broker that is away delays this, and nothing else."""
        try:
            await anyio.to_thread.run_sync(ensure_at_start, get_config(), abandon_on_cancel=True)
        except BrokerError as error:
            emit("provisioning_failed", error=str(error))

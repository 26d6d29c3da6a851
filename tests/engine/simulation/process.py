"""A worker process: the real executor, writer, heartbeat, outbox and dispatcher, with the threads taken out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from django.db import OperationalError, connection

from i3tasks import outbox
from i3tasks.broker.handover import Delivery
from i3tasks.broker.publisher import Outgoing
from i3tasks.dispatcher import Dispatcher
from i3tasks.engine.bodies import Raised, Returned, acall, bounded
from i3tasks.engine.executor import Executor, Verdict
from i3tasks.engine.running import Run, Running
from i3tasks.registry import TaskSpec
from i3tasks.store.refs import TryRef
from i3tasks.store.writer import Writer

from .broker import Broker, Message
from .timeline import Loop, Timeline

LEASE = 6.0
HEARTBEAT = 2.0
PASS_SECONDS = (0.5, 5.0)


class SimBatches:
    """In the place of a BatchThread: what was put is handled in one batch, a little later, by the timeline."""

    def __init__(self, process: Process, handle: Callable[[list[Any]], None]) -> None:
        self._process = process
        self._handle = handle
        self._ready: list[Any] = []
        self._discarded: set[int] = set()

    def put(self, item: Any, *, delay: float = 0) -> bool:
        if delay > 0:
            self._process.after(delay, lambda: self._make_ready(item))
        else:
            self._make_ready(item)
        return True

    def discard(self, item: Any) -> None:
        self._discarded.add(id(item))

    def _make_ready(self, item: Any) -> None:
        if id(item) in self._discarded:
            self._discarded.discard(id(item))
            return
        self._ready.append(item)
        if len(self._ready) == 1:
            self._process.after(self._process.timeline.chance.random() * 0.02, self._run)

    def _run(self) -> None:
        batch, self._ready = self._ready, []
        self._handle(batch)


class FaultyWriter(Writer):
    """The writer, on a database that goes away before a transaction, or after it and before it has said so."""

    def __init__(self, process: Process) -> None:
        super().__init__(clock=process.timeline.clock())
        self._process = process
        self._thread = SimBatches(process, self._handle)  # type: ignore[assignment]

    def _run_all(self, items: Any) -> Any:
        broker = self._process.broker
        if broker.happens(broker.faults.database_away):
            raise OperationalError("away")
        answers = super()._run_all(items)
        if broker.happens(broker.faults.reply_lost):
            raise OperationalError("the reply was lost")
        return answers


class SimPublisher:
    """In the place of the publisher: hands each message to the broker a little later, and its answer back."""

    is_available = True

    def __init__(self, process: Process) -> None:
        self._process = process

    def publish(self, outgoing: Outgoing) -> bool:
        process = self._process
        process.after(process.timeline.chance.random() * 0.05, lambda: self._send(outgoing))
        return True

    def _send(self, outgoing: Outgoing) -> None:
        process = self._process

        def answer(error: Any) -> None:
            process.after(process.timeline.chance.random() * 0.05, lambda: outgoing.on_done(error))

        process.broker.publish(outgoing, answer)


class SimPool:
    """Coroutines only, and room for all of them."""

    @asynccontextmanager
    async def slot(self, spec: TaskSpec | None) -> AsyncIterator[None]:
        yield

    async def run(
        self, spec: TaskSpec, run: Run, function: Callable[[], Any], timeout: float | None
    ) -> Returned | Raised:
        return await bounded(run, acall(run, function), timeout)


class Process:
    """One worker. Everything it does happens inside `act`, which is where it may die."""

    current: Process
    """Whose code runs now: what `outbox` takes for the process's own publisher and writer."""

    @staticmethod
    def now() -> datetime:
        """The time in the world of the process whose code runs now."""
        return Process.current.timeline.now

    def __init__(self, timeline: Timeline, broker: Broker, number: int, on_death: Callable[[], None]) -> None:
        self.timeline = timeline
        self.broker = broker
        self.number = number
        self.is_dead = False
        Process.current = self
        self._on_death = on_death
        self._held: set[Message] = set()
        self.loop = Loop(timeline)
        self.loop.run_ready = self._alive(self.loop.run_ready)  # type: ignore[method-assign]
        self.writer = FaultyWriter(self)
        self.publisher = SimPublisher(self)
        clock = timeline.clock()
        self._executor = Executor(
            store=self.writer,
            pool=SimPool(),
            running=Running(self.writer, lease_seconds=LEASE, heartbeat_seconds=HEARTBEAT),
            follow_up=self._send,
            worker_id=f"w{number}",
            clock=clock,
        )
        self._dispatcher = Dispatcher(clock)
        broker.receivers.append(self)
        self.after(timeline.chance.uniform(*PASS_SECONDS), self._pass)

    def after(self, seconds: float, action: Callable[[], Any]) -> None:
        """Do something later, if the process lives then."""
        self.timeline.after(seconds, self._alive(action))

    def receive(self, message: Message, delivery: Delivery) -> None:
        self._held.add(message)
        self._alive(lambda: self.loop.create_task(self._carry_out(message, delivery)))()

    def kill(self) -> None:
        self.is_dead = True
        self.loop.kill()
        self.broker.receivers.remove(self)
        for message in sorted(self._held, key=lambda message: message.published):
            self.broker.abandon(message)
        self._on_death()

    def _alive(self, action: Callable[[], Any]) -> Callable[[], None]:
        def act() -> None:
            if self.is_dead:
                return
            if self.broker.happens(self.broker.faults.process_dies):
                self.kill()
                return
            Process.current = self
            action()

        return act

    async def _carry_out(self, message: Message, delivery: Delivery) -> None:
        """As `Worker._carry_out`."""
        verdict = (await self._executor.execute(delivery)).verdict
        await self.loop.create_task(_a_step())  # between the follow-ups and the answer, too, the process may die
        self._held.discard(message)
        if verdict is Verdict.ACK:
            self.broker.ack(message)
        else:
            self.broker.nack(message)

    def _send(self, refs: Iterable[TryRef]) -> None:
        outbox.send(refs, clock=self.timeline.clock())

    def _pass(self) -> None:
        if _anything_to_do(self.timeline.now):  # a pass without costs more than all else
            self._dispatcher.pass_once()
        self.after(self.timeline.chance.uniform(*PASS_SECONDS), self._pass)


async def _a_step() -> None:
    """Gives way to whatever else is to happen."""


def _anything_to_do(now: datetime) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM i3tasks_taskexecutiontry WHERE dispatch_at <= %s OR lease_until < %s LIMIT 1", [now, now]
        )
        return cursor.fetchone() is not None

"""A worker process: the real executor, writer, heartbeat, outbox and dispatcher, with the threads taken out."""

from __future__ import annotations

from asyncio import events
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import OperationalError, connection

from i3tasks.broker.deliveries import Delivery
from i3tasks.broker.outgoing import MakeMessage, Outgoing
from i3tasks.broker.stream_health import Quiet
from i3tasks.engine import outbox
from i3tasks.engine.bodies import Raised, Returned, acall, bounded
from i3tasks.engine.connections import call_apart
from i3tasks.engine.dispatcher import Dispatcher
from i3tasks.engine.executor import Executor
from i3tasks.engine.fallback import Fallback, QueueSource
from i3tasks.engine.lease_renewal import HandedBack, Run, Running
from i3tasks.engine.pool import PoolClosing, Room
from i3tasks.engine.report import Verdict
from i3tasks.registry import TaskSpec
from i3tasks.store.operations import CLAIM, PUT_BACK, SETTLE
from i3tasks.store.requests import LOCKED, TryRef
from i3tasks.store.writer import Writer
from tests.support.rigs import made

from .broker import Broker, Message
from .timeline import Loop, Timeline
from .watch import breaches_of_dispatcher, breaches_of_writer, look

LEASE = 6.0
HEARTBEAT = 2.0
PASS_SECONDS = (0.5, 5.0)
FALLBACK = 3.0
MOST_TAKEN = 5


class SimBatches:
    """In the place of a BatchThread: what was put is handled in one batch, a little later, by the timeline."""

    has_ready = False
    """What comes together is the timeline's to say: nothing is waited for."""

    def __init__(self, process: Process, handle: Callable[[list[Any]], None]) -> None:
        self._process = process
        self._handle = handle
        self._ready: list[Any] = []
        self._later: list[Any] = []

    def put(self, item: Any, *, delay: float = 0, even_if_full: bool = False) -> bool:
        if delay > 0:
            self._later.append(item)
            self._process.after(delay, lambda: self._come_due(item))
        else:
            self._make_ready(item)
        return True

    def put_all(self, items: list[Any], *, delay: float = 0) -> int:
        return sum(self.put(item, delay=delay) for item in items)

    def discard(self, item: Any) -> None:
        self._later = [other for other in self._later if other is not item]

    def _come_due(self, item: Any) -> None:
        if any(other is item for other in self._later):
            self.discard(item)
            self._make_ready(item)

    def _make_ready(self, item: Any) -> None:
        self._ready.append(item)
        if len(self._ready) == 1:
            self._process.after(self._process.timeline.chance.random() * 0.02, self._run)

    def _run(self) -> None:
        batch, self._ready = self._ready, []
        self._handle(batch)


class FaultyWriter(Writer):
    """The writer, on a database that goes away before a transaction, or after it and before it has said so."""

    def __init__(self, process: Process) -> None:
        super().__init__(lambda: process.clock)
        self._process = process
        self._thread = SimBatches(process, self._handle)  # type: ignore[assignment]

    def _run_all(self, items: Any, asked: Any) -> Any:
        broker = self._process.broker
        if broker.happens(broker.faults.database_away):
            raise OperationalError("away")
        held = [item for item in items if item.operation in {CLAIM, SETTLE} and broker.happens(broker.faults.row_held)]
        free = [item for item in items if item not in held]
        before = look()
        answers = super()._run_all(free, asked) + [(item, LOCKED) for item in held]
        broker.breaches += breaches_of_writer(before, look(), free)
        if broker.happens(broker.faults.reply_lost):
            raise OperationalError("the reply was lost")
        return answers


class SimPublisher:
    """In the place of the publisher: hands each message to the broker a little later, and its answer back."""

    is_available = True

    def __init__(self, process: Process) -> None:
        self._process = process

    def is_refused_by(self, topic: str) -> bool:
        return False

    def publish(self, *messages: Outgoing | MakeMessage) -> bool:
        process = self._process
        for message in messages:
            process.after(process.timeline.chance.random() * 0.05, partial(self._send, made(message)))
        return True

    def _send(self, outgoing: Outgoing) -> None:
        process = self._process

        def answer(error: Any) -> None:
            process.after(process.timeline.chance.random() * 0.05, lambda: outgoing.on_done([outgoing], error))

        process.broker.publish(outgoing, answer)


class SimPool:
    """Coroutines, and functions that take no time; room for all of them until it closes."""

    is_closing = False
    spare_threads = None

    @property
    def room(self) -> Room:
        return Room(0, 0) if self.is_closing else Room(MOST_TAKEN, MOST_TAKEN)

    @asynccontextmanager
    async def slot(self, spec: TaskSpec | None) -> AsyncIterator[SimPool]:
        if self.is_closing:
            raise PoolClosing
        yield self

    async def run(
        self, spec: TaskSpec, run: Run, function: Callable[[], Any], timeout: float | None
    ) -> Returned | Raised:
        if not spec.is_coroutine:
            return _as_in_a_thread(function)
        return await bounded(run, acall(run, function), timeout)


def _as_in_a_thread(function: Callable[[], Any]) -> Returned | Raised:
    """Call the body where Django sees no event loop."""
    loop = events._get_running_loop()
    events._set_running_loop(None)
    try:
        return call_apart(function)
    finally:
        events._set_running_loop(loop)


class Process:
    """One worker. Everything it does happens inside `act`, which is where it may die."""

    current: Process
    """Whose code runs now: what `outbox` takes for the process's own publisher and writer."""

    @staticmethod
    def now() -> datetime:
        """The time in the world of the process whose code runs now."""
        return Process.current.timeline.now

    def __init__(
        self,
        timeline: Timeline,
        broker: Broker,
        number: int,
        on_death: Callable[[], None],
        handed_back: Counter[int],
        falls_back: bool,
    ) -> None:
        self.timeline = timeline
        self.broker = broker
        self.number = number
        self.is_dead = False
        Process.current = self
        self._on_death = on_death
        self._handed_back = handed_back
        self._frozen_until = 0.0
        self._blocked_until = 0.0
        differ = broker.faults.clocks_differ
        self.clock = timeline.clock(timedelta(seconds=timeline.chance.uniform(-differ, differ)))
        self._pool = SimPool()
        self._held: dict[Message, None] = {}  # in their order; a set's would differ from run to run
        self.loop = Loop(timeline)
        self.loop.run_ready = self._alive(self._unless_blocked(self.loop.run_ready))  # type: ignore[method-assign]
        self.writer = FaultyWriter(self)
        self.publisher = SimPublisher(self)
        clock = self.clock
        self._running = Running(self.writer, lease_seconds=LEASE, heartbeat_seconds=HEARTBEAT, clock=clock)
        self._executor = Executor(
            store=self.writer,
            pool=self._pool,
            running=self._running,
            follow_up=self._send,
            worker_id=f"w{number}",
            clock=clock,
        )
        self._dispatcher = Dispatcher(clock)
        self._quiet = Quiet(clock, FALLBACK, MOST_TAKEN)
        self._fallback = Fallback(
            [QueueSource("default", self)],
            store=self.writer,
            room=lambda: self._pool.room,
            begin=lambda ref: self.loop.create_task(self._run_waiting(ref)) and None,
            seconds=FALLBACK,
            clock=clock,
        )
        broker.receivers.append(self)
        if falls_back:
            self.after(timeline.chance.uniform(0, 1), self._fall_back)
        self.after(timeline.chance.uniform(*PASS_SECONDS), self._pass)

    def after(self, seconds: float, action: Callable[[], Any]) -> None:
        """Do something later, if the process lives then."""
        self.timeline.after(seconds, self._alive(action))

    is_down = False

    @property
    def quiet_seconds(self) -> float:
        """As `Receiver.quiet_seconds`."""
        return self._quiet.seconds

    def doubt(self) -> None:
        """There is no client to start anew."""

    def _fall_back(self) -> None:
        if _anything_waits(self.timeline.now):
            self.loop.create_task(self._fallback.turn())
        self.after(self.timeline.chance.uniform(0.5, 1.5), self._fall_back)

    async def _run_waiting(self, ref: TryRef) -> None:
        """As `Worker._begin`, without a message."""
        if (await self._executor.execute_waiting(ref)).verdict is Verdict.NACK:
            self.writer.post(PUT_BACK, ref)

    def receive(self, message: Message, delivery: Delivery) -> None:
        self._quiet.arrived(delivery.publish_time)
        self._held[message] = None
        self._alive(lambda: self.loop.create_task(self._carry_out(message, delivery)))()

    def kill(self) -> None:
        self.is_dead = True
        self.loop.kill()
        if self in self.broker.receivers:
            self.broker.receivers.remove(self)
        for message in self._held:
            self.broker.abandon(message)
        self._on_death()

    def _alive(self, action: Callable[[], Any]) -> Callable[[], None]:
        def act() -> None:
            if self.is_dead:
                return
            faults, happens = self.broker.faults, self.broker.happens
            if self.timeline.seconds < self._frozen_until:
                self.timeline.after(self._frozen_until - self.timeline.seconds, act, in_order=True)
                return
            if happens(faults.process_dies):
                self.kill()
                return
            if happens(faults.process_freezes):
                self._frozen_until = self.timeline.seconds + self.timeline.chance.uniform(0.1, 3 * LEASE)
            if not self._pool.is_closing and happens(faults.process_stops):
                self._stop()
            Process.current = self
            action()

        return act

    def _unless_blocked(self, run_ready: Callable[[], None]) -> Callable[[], None]:
        """A body may block the loop; the writer's and the dispatcher's threads go on."""

        def run() -> None:
            faults, seconds = self.broker.faults, self.timeline.seconds
            if seconds >= self._blocked_until and self.broker.happens(faults.loop_blocks):
                self._blocked_until = seconds + self.timeline.chance.uniform(0.1, 3 * LEASE)
            if seconds < self._blocked_until:
                self.timeline.after(self._blocked_until - seconds, self.loop.run_ready, in_order=True)
            else:
                run_ready()

        return run

    def _stop(self) -> None:
        """As `Worker._drain`: nothing new, what runs may end, what does not end in time is handed back."""
        self._pool.is_closing = True
        self.broker.receivers.remove(self)
        self.after(self.timeline.chance.uniform(0, 2), self._hand_back)

    def _hand_back(self) -> None:
        self._handed_back.update(self._running.leases.keys())
        events._set_running_loop(self.loop)
        self._running.stop_all(HandedBack())
        events._set_running_loop(None)
        self.after(LEASE, self.kill)

    async def _carry_out(self, message: Message, delivery: Delivery) -> None:
        """As `Worker._carry_out`."""
        verdict = (await self._executor.execute(delivery)).verdict
        await self.loop.create_task(_a_step())  # between the follow-ups and the answer, too, the process may die
        self._held.pop(message, None)
        if verdict is Verdict.ACK:
            self.broker.ack(message)
        else:
            self.broker.nack(message)

    def _send(self, refs: Iterable[TryRef]) -> None:
        outbox.send(refs, clock=self.clock)

    def _pass(self) -> None:
        if _anything_to_do(self.timeline.now):  # a pass without costs more than all else
            before = look()
            self._dispatcher.pass_once()
            self.broker.breaches += breaches_of_dispatcher(before, look(), self.timeline.now)
        self.after(self.timeline.chance.uniform(*PASS_SECONDS), self._pass)


async def _a_step() -> None:
    """Gives way to whatever else is to happen."""


def _anything_to_do(now: datetime) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM i3tasks_taskexecutiontry"
            " WHERE dispatch_at <= %s OR dispatch_at >= '9000' OR lease_until < %s)"
            " OR EXISTS (SELECT 1 FROM i3tasks_taskgroup WHERE status = 'pending' AND deadline < %s)"
            " OR EXISTS (SELECT 1 FROM i3tasks_groupslice)",
            [now, now, now],
        )
        return bool(cursor.fetchone()[0])


def _anything_waits(now: datetime) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM i3tasks_taskexecutiontry"
            " WHERE NOT is_completed AND started_at IS NULL AND coalesce(run_after, asked_at) <= %s)",
            [now],
        )
        return bool(cursor.fetchone()[0])

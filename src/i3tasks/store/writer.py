"""Group commit: the requests of many coroutines become one transaction of one thread.

A worker with 100 tries under way would spend its time on the ORM's cost per statement; here their claims and
settlements share statements. The thread has a Django connection of its own, so that it never waits for a body's ORM
calls; it ends after some idle seconds, and is started again when needed (also after a fork).

When the database gives no answer, claims fail with StoreUnavailable, so that their messages go back to Pub/Sub;
settlements wait here until it is back, so that no outcome is forgotten.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from django.core import mail
from django.db import DatabaseError, InterfaceError, OperationalError, connections

from ..core.clock import Clock
from ..core.outcome import Released
from ..exceptions import StoreUnavailable
from ..telemetry import emit
from ..threads.batching import BatchThread
from ..threads.forking import ForkBarrier
from .database import alias, atomic, is_contention, join_by_index, time_of
from .delivering import Item, deliver
from .lock_waits import LockWaits
from .operations import IN_ORDER, SETTLE, Answer, Operation, Request, StoreFunction
from .plain_answers import Asked, answer_plain
from .requests import LOCKED, Claimed, Settlement

MAXIMUM_BATCH = 400
MAXIMUM_QUEUED = 200_000
IDLE_SECONDS = 5.0
OUTAGE_DELAY = 1.0
GATHER_SECONDS = 0.5
"""Confirmations wait for this time to twice as long, and are written together. By then most of the tries have been
claimed; a confirmation that had locked such a row when its claim came would have made the claim wait."""
PLAIN_FAILURES = 3
"""So many times in a row the plain form of a batch fails where its transaction then succeeds, until such batches, with
requests of the same operations, do without it."""
SEVERAL = 2
"""A request alone is answered by its own operation in one statement."""
FEW = 32
FOLLOWING_SECONDS = 0.0001
"""After a small batch, what waits already is written this much later, together with what the answers bring about: the
settlement of a short body, or a next claim. Without it, two tries under way would take turns with a commit each."""
READ_ONLY = "25006"  # PostgreSQL's state of a standby, and of a server whose disk is full: a while later we may write
ATTEMPTS = 3  # for deadlocks, serialization failures, and a connection that had gone stale

# SQLite's locks are the process's: a child born during a transaction would find its file locked for ever.
_transactions = ForkBarrier()


class Writer:
    """Runs store operations for coroutines of any number of loops, and for threads."""

    def __init__(self, clock: Callable[[], Clock]) -> None:
        """`clock` gives the clock that counts at the time."""
        self._clock_now = clock
        self._down_until = 0.0
        self._is_down = False
        self._lock_waits = LockWaits(self._keep, clock)
        self._plain_failures: Counter[frozenset[Operation[Any, Any]]] = Counter()
        self._connection: Any = None  # referred to, so that a forked child does not close its parent's
        self._thread: BatchThread[Item] = BatchThread(
            "i3tasks-writer",
            self._handle,
            max_batch=MAXIMUM_BATCH,
            max_queued=MAXIMUM_QUEUED,
            idle_seconds=idle_seconds,
            on_end=_close_connection,
        )

    async def ask(
        self,
        operation: Operation[Request, Answer],
        request: Request,
        at_commit: Callable[[Answer], None] | None = None,
    ) -> Answer:
        """The answer, after the commit of the transaction it was found in.

        `at_commit` gets it before, in the writer's thread: the asker's loop may be blocked for long.
        Raises StoreUnavailable when the database gave none, or the error that this request alone causes.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        # The settlements of claimed tries are few, as the number of running tries is limited: they must find room.
        item = Item(operation, request, future, at_commit)
        if not self._thread.put(item, even_if_full=operation.survives_outage):
            raise StoreUnavailable(
                "The writer's queue is full: the database is too slow for this load. Lower `concurrency`, or see what "
                "slows the database down."
            )
        return await future

    @property
    def _clock(self) -> Clock:
        return self._clock_now()

    def post(self, operation: Operation[Request, Answer], request: Request, *, at_once: bool = False) -> None:
        """Ask without waiting for the answer, from any thread. A full queue drops the request."""
        self.post_all(operation, [request], at_once=at_once)

    def post_all(
        self, operation: Operation[Request, Answer], requests: Iterable[Request], *, at_once: bool = False
    ) -> None:
        """`post` each of them. A full queue drops those that find no place."""
        waits = operation.is_gathered and not at_once
        items = [Item(operation, request) for request in requests]
        self._thread.put_all(items, delay=self._seconds_until_gathered() if waits else 0)

    def later(
        self,
        delay: float,
        operation: Operation[Request, Answer],
        request: Request,
        then: Callable[[Answer | Exception], None],
    ) -> Callable[[], None]:
        """Ask after `delay` seconds; `then` gets the answer, in the writer's thread. Call the result to cancel."""
        item = Item(operation, request, then=then)
        self._thread.put(item, delay=delay, even_if_full=True)  # one for each loop
        return partial(self._thread.discard, item)

    def flush(self, timeout: float) -> bool:
        """Wait until everything asked so far is answered; False if that took more than `timeout` seconds."""
        self._thread.hurry(lambda item: item.operation.is_gathered)
        return self._thread.flush(timeout)

    def close(self, timeout: float) -> None:
        """Wait for the thread to go idle and close its connection."""
        self._thread.join(timeout)

    def _seconds_until_gathered(self) -> float:
        """Until the end of the next span of time, so that all that is posted in this one falls due together."""
        span, now = gather_seconds(), self._clock.monotonic()
        return (now // span + 2) * span - now if span else 0.0

    def _handle(self, items: list[Item]) -> None:
        live = [item for item in items if not item.is_abandoned or item.operation.survives_outage]
        if self._is_down and self._clock.monotonic() < self._down_until:
            self._refuse(live, StoreUnavailable())
            return
        live, asked, failure = self._answer_plain(live)
        try:
            with _transactions.held():
                answers = self._commit(live, asked)
        except Exception as error:
            if is_contention(error):
                self._deliver(self._lock_waits.put_back((item, LOCKED) for item in live))
            elif _is_outage(error):
                self._go_down(error)
                self._refuse(live, error)
            else:
                self._bisect(live, error)
        else:
            self._come_back()
            if failure is not None:
                self._note_plain_failure(live, failure)
            self._deliver(self._lock_waits.put_back(answers))
            if len(items) < FEW and self._thread.has_ready:
                time.sleep(FOLLOWING_SECONDS)

    def _answer_plain(self, items: list[Item]) -> tuple[list[Item], Asked, Exception | None]:
        """Answer the plain requests of a batch, ahead of the others: they cost a fraction. Gives what is left."""
        operations = _operations(items)
        if len(items) < SEVERAL or self._plain_failures[operations] >= PLAIN_FAILURES:
            return items, {}, None
        try:
            with _transactions.held():
                asked = self._ask_plain(items)
        except Exception as error:
            return items, {}, error  # the transaction of all of them meets the same trouble, and knows what to do
        self._plain_failures.pop(operations, None)
        answered: list[tuple[Item, Any]] = []
        left = []
        for item in items:
            answers = asked.get(item.operation)
            if answers and item.request.try_id in answers:
                answered.append((item, answers[item.request.try_id]))
            else:
                left.append(item)
        self._deliver(answered)
        return left, asked, None

    def _note_plain_failure(self, items: Iterable[Item], error: Exception) -> None:
        """Another transaction is no fault of the plain form, and a connection is not lost so often in a row."""
        operations = _operations(items)
        self._plain_failures[operations] += not is_contention(error)
        if self._plain_failures[operations] == PLAIN_FAILURES:
            emit("internal_error", where="plain form of a batch", error=repr(error), exc_info=error)

    def _ask_plain(self, items: Sequence[Item]) -> Asked:
        self._connection = connections[alias()]
        grouped = _grouped(items)
        requests = {operation: [item.request for item in group] for operation, group in grouped.items()}
        return answer_plain(requests, time_of(self._clock))

    def _commit(self, items: Sequence[Item], asked: Asked) -> list[tuple[Item, Any]]:
        if not items:
            return []
        for _ in range(ATTEMPTS - 1):
            try:
                return self._run_all(items, asked)
            except (OperationalError, InterfaceError) as error:
                if not is_contention(error):
                    _close_connection()
        return self._run_all(items, asked)

    def _run_all(self, items: Sequence[Item], asked: Asked) -> list[tuple[Item, Any]]:
        self._connection = connections[alias()]
        now = time_of(self._clock)
        if len(items) == 1 and self._connection.get_autocommit():
            # Each operation is a transaction by itself: one alone needs none around it, which costs two round trips.
            [answer] = _function(items[0].operation, asked)([items[0].request], now=now)
            return [(items[0], answer)]
        grouped = _grouped(items)
        answers: list[tuple[Item, Any]] = []
        with atomic():
            join_by_index(len(items))
            for operation in IN_ORDER:
                if group := grouped.get(operation):
                    requests = [item.request for item in group]
                    answers += zip(group, _function(operation, asked)(requests, now=now), strict=True)
        return answers

    def _bisect(self, items: list[Item], error: Exception) -> None:
        """A row that the database refuses fails alone, not the batch that it came in."""
        if len(items) > 1:
            middle = len(items) // 2
            self._handle(items[:middle])
            self._handle(items[middle:])
            return
        if not isinstance(error, DatabaseError):
            emit("internal_error", where="writer", error=repr(error), exc_info=error)
        self._deliver((item, error) for item in items)

    def _refuse(self, items: Iterable[Item], error: Exception) -> None:
        for item in items:
            if not (item.operation.survives_outage and self._keep(item, OUTAGE_DELAY)):
                unavailable = StoreUnavailable(f"The database gave no answer: {error}")
                unavailable.__cause__ = error
                self._deliver([(item, unavailable)])

    def _keep(self, item: Item, delay: float) -> bool:
        """Put back what is under way. False: it can be forgotten, and the queue is full."""
        return self._thread.put(item, delay=delay, even_if_full=item.operation.survives_outage)

    def _go_down(self, error: Exception) -> None:
        _close_connection()  # it may be to a server that is the primary no more
        self._down_until = self._clock.monotonic() + OUTAGE_DELAY
        if not self._is_down:
            self._is_down = True
            emit("store_unavailable", error=str(error))

    def _come_back(self) -> None:
        if self._is_down:
            self._is_down = False
            emit("store_recovered")

    def _deliver(self, answers: Iterable[tuple[Item, Any]]) -> None:
        deliver(answers, self._give_back)

    def _give_back(self, answer: Any) -> None:
        """Release a lease that was won for a coroutine that has gone."""
        if isinstance(answer, Claimed):
            self.post(SETTLE, Settlement(answer.try_id, answer.execution_id, answer.token, Released()))


def _grouped(items: Iterable[Item]) -> Mapping[Operation[Any, Any], list[Item]]:
    grouped: defaultdict[Operation[Any, Any], list[Item]] = defaultdict(list)
    for item in items:
        grouped[item.operation].append(item)
    return grouped


def _operations(items: Iterable[Item]) -> frozenset[Operation[Any, Any]]:
    return frozenset([item.operation for item in items])


def _function(operation: Operation[Request, Answer], asked: Asked) -> StoreFunction[Request, Answer]:
    return operation.rest if operation.rest is not None and operation in asked else operation.run


def _is_outage(error: Exception) -> bool:
    """The database is away or busy, as opposed to refusing what it was given."""
    state = getattr(error.__cause__, "sqlstate", None) or ""
    if state == READ_ONLY:
        return True
    too_large = state.startswith("54")  # PostgreSQL calls a value over its limits an operational error
    return isinstance(error, (OperationalError, InterfaceError)) and not too_large


def idle_seconds() -> float:
    """How long a thread with a database connection may be idle before it ends.

    Under a test runner no connection may be left when the test database is dropped."""
    return 0.0 if "outbox" in vars(mail) else IDLE_SECONDS


def gather_seconds() -> float:
    """GATHER_SECONDS; nothing under a test runner, where the next test may have begun by then."""
    return 0.0 if "outbox" in vars(mail) else GATHER_SECONDS


def _close_connection() -> None:
    try:
        connections[alias()].close()
    except DatabaseError:
        connections[alias()].connection = None  # it was broken beyond closing

"""Group commit: what many coroutines ask of the database becomes one transaction of one thread.

A worker with 100 tries under way would spend its time on the ORM's cost per statement; here their claims and
settlements share statements. The thread has a Django connection of its own, so that no body's ORM calls are in its
way, ends after some idle seconds, and is made anew when needed (also after a fork).

When the database gives no answer, claims fail with StoreUnavailable, so that their messages go back to Pub/Sub;
settlements wait here until it is back: what a body has done must not be forgotten.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from django.core import mail
from django.db import DatabaseError, InterfaceError, OperationalError, connections

from ..batching import BatchThread
from ..clock import SYSTEM_CLOCK, Clock
from ..exceptions import StoreUnavailable
from ..forking import ForkBarrier
from ..outcome import Released
from ..telemetry import emit
from .database import alias, atomic
from .dispatching import confirm_published, deny_published
from .leases import claim, renew
from .refs import (
    LOCKED,
    Claimed,
    ClaimRequest,
    Locked,
    Refusal,
    Renewed,
    RenewRequest,
    Settled,
    Settlement,
    Stale,
    TryRef,
)
from .settle import settle

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Request_contra = TypeVar("Request_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)

MAXIMUM_BATCH = 400
MAXIMUM_QUEUED = 200_000
IDLE_SECONDS = 5.0
LOCKED_DELAY = 0.05  # seconds; doubled each time, up to
LOCKED_LONGEST_DELAY = 1.0
OUTAGE_DELAY = 1.0
READ_ONLY = "25006"  # PostgreSQL's state of a standby, and of a server whose disk is full: a while later we may write
ATTEMPTS = 3  # for deadlocks, serialization failures, and a connection that had gone stale

# SQLite's locks are the process's: a child born during a transaction would find its file locked for ever.
_transactions = ForkBarrier()


class StoreFunction(Protocol[Request_contra, Answer_co]):
    """As `claim`, `settle`, `renew` and `confirm_published` are."""

    def __call__(
        self, requests: Sequence[Request_contra], /, *, wait: bool = False
    ) -> Sequence[Answer_co | Locked]: ...


@dataclass(frozen=True, slots=True)
class Operation(Generic[Request, Answer]):
    """A store function that answers many requests in one transaction."""

    run: StoreFunction[Request, Answer]
    survives_outage: bool


CLAIM: Operation[ClaimRequest, Claimed | Refusal] = Operation(claim, survives_outage=False)
SETTLE: Operation[Settlement, Settled | Stale] = Operation(settle, survives_outage=True)
RENEW: Operation[RenewRequest, Renewed] = Operation(renew, survives_outage=False)
CONFIRM: Operation[TryRef, None] = Operation(confirm_published, survives_outage=False)
DENY: Operation[TryRef, None] = Operation(deny_published, survives_outage=False)

_ORDER: tuple[Operation[Any, Any], ...] = (SETTLE, RENEW, CONFIRM, DENY, CLAIM)


@dataclass(slots=True, eq=False)
class _Item:
    operation: Operation[Any, Any]
    request: Any
    future: asyncio.Future[Any] | None = None
    then: Callable[[Any], None] | None = None
    delay: float = LOCKED_DELAY

    @property
    def is_abandoned(self) -> bool:
        return self.future is not None and self.future.done()


class Writer:
    """Runs store operations for coroutines of any number of loops, and for threads."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._down_until = 0.0
        self._is_down = False
        self._connection: Any = None  # referred to, so that a forked child does not close its parent's
        self._thread: BatchThread[_Item] = BatchThread(
            "i3tasks-writer",
            self._handle,
            max_batch=MAXIMUM_BATCH,
            max_queued=MAXIMUM_QUEUED,
            idle_seconds=_idle_seconds,
            on_end=_close_connection,
        )

    async def ask(self, operation: Operation[Request, Answer], request: Request) -> Answer:
        """The answer, after the commit of the transaction it was found in.

        Raises StoreUnavailable when the database gave none, or the error that this request alone causes.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if not self._thread.put(_Item(operation, request, future)):
            raise StoreUnavailable("The writer's queue is full: the database is too slow for this load.")
        return await future

    def post(self, operation: Operation[Request, Answer], request: Request) -> None:
        """The same from any thread, for those who need no answer. What does not fit is dropped."""
        self._thread.put(_Item(operation, request))

    def later(
        self,
        delay: float,
        operation: Operation[Request, Answer],
        request: Request,
        then: Callable[[Answer | Exception], None],
    ) -> Callable[[], None]:
        """Ask after `delay` seconds; `then` gets the answer, in the writer's thread. Call the result to cancel."""
        item = _Item(operation, request, then=then)
        self._thread.put(item, delay=delay)
        return partial(self._thread.discard, item)

    def flush(self, timeout: float) -> bool:
        """Wait until everything asked so far is answered; False if that took more than `timeout` seconds."""
        return self._thread.flush(timeout)

    def close(self, timeout: float) -> None:
        """Wait for the thread to go idle and close its connection."""
        self._thread.join(timeout)

    def _handle(self, items: list[_Item]) -> None:
        live = [item for item in items if not item.is_abandoned or item.operation.survives_outage]
        if self._is_down and self._clock.monotonic() < self._down_until:
            self._refuse(live, StoreUnavailable())
            return
        try:
            with _transactions.held():
                answers = self._commit(live)
        except Exception as error:
            if _is_outage(error):
                self._go_down(error)
                self._refuse(live, error)
            else:
                self._bisect(live, error)
        else:
            self._come_back()
            _deliver(self._put_back_locked(answers))

    def _commit(self, items: Sequence[_Item]) -> list[tuple[_Item, Any]]:
        for _ in range(ATTEMPTS - 1):
            try:
                return self._run_all(items)
            except (OperationalError, InterfaceError):
                _close_connection()
        return self._run_all(items)

    def _run_all(self, items: Sequence[_Item]) -> list[tuple[_Item, Any]]:
        self._connection = connections[alias()]
        grouped: defaultdict[Operation[Any, Any], list[_Item]] = defaultdict(list)
        for item in items:
            grouped[item.operation].append(item)
        answers: list[tuple[_Item, Any]] = []
        with atomic():
            for operation in _ORDER:
                if group := grouped.get(operation):
                    answers += zip(group, operation.run([item.request for item in group]), strict=True)
        return answers

    def _bisect(self, items: list[_Item], error: Exception) -> None:
        """A row that the database refuses fails alone, not the batch that it came in."""
        if len(items) > 1:
            middle = len(items) // 2
            self._handle(items[:middle])
            self._handle(items[middle:])
            return
        if not isinstance(error, DatabaseError):
            emit("internal_error", where="writer", error=repr(error), exc_info=error)
        _deliver((item, error) for item in items)

    def _refuse(self, items: Iterable[_Item], error: Exception) -> None:
        for item in items:
            if not (item.operation.survives_outage and self._thread.put(item, delay=OUTAGE_DELAY)):
                unavailable = StoreUnavailable(f"The database gave no answer: {error}")
                unavailable.__cause__ = error
                _deliver([(item, unavailable)])

    def _put_back_locked(self, answers: Iterable[tuple[_Item, Any]]) -> list[tuple[_Item, Any]]:
        """Requests whose row is locked by somebody's open transaction wait in the queue, not in the database."""
        final = []
        for item, answer in answers:
            if answer is LOCKED and self._thread.put(item, delay=item.delay):
                item.delay = min(item.delay * 2, LOCKED_LONGEST_DELAY)
            else:
                final.append((item, StoreUnavailable("The row stayed locked.") if answer is LOCKED else answer))
        return final

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


def _deliver(answers: Iterable[tuple[_Item, Any]]) -> None:
    """Resolve futures on their own loops, with one wake-up a loop."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[_Item, Any]]] = defaultdict(list)
    for item, answer in answers:
        if item.then is not None:
            _tell(item.then, answer)
        elif item.future is not None:
            by_loop[item.future.get_loop()].append((item, answer))
    for loop, resolved in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, resolved)
        except RuntimeError:  # the loop was closed
            for _, answer in resolved:
                _give_back(answer)


def _tell(then: Callable[[Any], None], answer: Any) -> None:
    """An error in one callback must not keep the answers from the others."""
    try:
        then(answer)
    except Exception as error:
        emit("internal_error", where="writer", error=repr(error), exc_info=error)


def _resolve(answers: Iterable[tuple[_Item, Any]]) -> None:
    for item, answer in answers:
        assert item.future is not None
        if item.future.done():
            _give_back(answer)
        elif isinstance(answer, Exception):
            item.future.set_exception(answer)
        else:
            item.future.set_result(answer)


def _give_back(answer: Any) -> None:
    """A lease that was won for somebody who is gone."""
    if isinstance(answer, Claimed):
        writer.post(SETTLE, Settlement(answer.try_id, answer.execution_id, answer.token, Released()))


def _is_outage(error: Exception) -> bool:
    """The database is away or busy, as opposed to refusing what it was given."""
    state = getattr(error.__cause__, "sqlstate", None) or ""
    if state == READ_ONLY:
        return True
    too_large = state.startswith("54")  # PostgreSQL calls a value over its limits an operational error
    return isinstance(error, (OperationalError, InterfaceError)) and not too_large


def _idle_seconds() -> float:
    """Under a test runner no connection may be left when the test database is dropped."""
    return 0.0 if hasattr(mail, "outbox") else IDLE_SECONDS


def _close_connection() -> None:
    try:
        connections[alias()].close()
    except DatabaseError:
        connections[alias()].connection = None  # it was broken beyond closing


writer = Writer()

_inherited: list[Any] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _inherited.append(writer._connection))

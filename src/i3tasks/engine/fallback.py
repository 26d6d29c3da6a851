"""The second way for a try to reach a worker: from the database, when no message brings it.

A worker that has room and receives no messages looks in the database for waiting tries of its queues. For a
DatabaseQueue it always does. While messages arrive it leaves the rows alone, as each try would be run once and its
message then be refused. See `store.waiting`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import anyio

from ..broker.publisher import get_publisher
from ..core.clock import SYSTEM_CLOCK, Clock
from ..exceptions import StoreUnavailable
from ..registry import find
from ..store.fallback import WaitingRequest
from ..store.operations import TAKE_WAITING
from ..store.pauses import known_pauses
from ..store.requests import TryRef
from ..telemetry import emit
from .gateway import Gateway
from .pool import Room

LOOK_SECONDS = 1.0
"""Seconds between two looks at the receivers, which need no query. Also the pause while there are tries to take."""
FULL_SECONDS = 0.02
"""The same while there are more tries than room for them."""
COST = 20
"""The least pause after a query that found nothing, as a multiple of the time that the query took."""
COST_OF_POLLING = 2
"""The same after one that found tries, of which more are likely to come, and for a DatabaseQueue: it is asked as often
as its `poll_seconds` say."""
AT_ONCE = timedelta(0)
UNNOTED = timedelta(seconds=10)
"""How long a try of a DatabaseQueue is left to the process that has written it, which notes that it is committed. That
takes milliseconds, unless the process died."""


class Hearing(Protocol):
    """The part of a receiver that the fallback uses."""

    @property
    def is_down(self) -> bool: ...

    @property
    def quiet_seconds(self) -> float: ...

    def doubt(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """Describes the waiting tries of a queue to take, and the pause in seconds when there were none."""

    published_for: timedelta | None
    overdue_for: timedelta
    pause: float
    why: str = ""
    """The fault of Pub/Sub that makes this necessary; "" for a DatabaseQueue, which does not use Pub/Sub."""
    unsent_for: timedelta | None = None
    is_doubt: bool = False
    """Whether a stream that seems to be well should have brought these tries."""


@dataclass(slots=True, eq=False)
class QueueSource:
    """A queue whose tries the worker runs, and the time of the next look for waiting ones."""

    name: str
    receiver: Hearing | None
    """The receiver of the queue's messages; None for a DatabaseQueue, which has no messages."""
    poll_seconds: float = LOOK_SECONDS
    topic: str = ""
    next_at: float = 0.0
    is_taken_from: bool = False


class Fallback:
    """Looks for waiting tries and passes them to `begin`. `run` is the loop; `turn` is one turn of it.

    `seconds` is the time without messages after which tries are taken, and the least time since a try was published.
    """

    def __init__(
        self,
        sources: Sequence[QueueSource],
        *,
        store: Gateway,
        room: Callable[[], Room],
        begin: Callable[[TryRef], None],
        seconds: float,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._sources = sources
        self._store = store
        self._room = room
        self._begin = begin
        self._seconds = seconds
        self._look_seconds = min(LOOK_SECONDS, seconds, *(source.poll_seconds for source in sources))
        self._clock = clock
        self._wants_threads_until = 0.0

    async def run(self) -> None:
        """Call `turn` again and again until cancelled."""
        while True:
            seconds = await self.turn()
            await anyio.sleep(seconds)

    async def turn(self) -> float:
        """Take the waiting tries that there is room for. Returns the seconds until the next turn."""
        is_full = False
        for wanted, sources in self._due().items():
            room = self._room()
            if not room.tries or (not room.threads and self._clock.monotonic() < self._wants_threads_until):
                return FULL_SECONDS
            is_full |= await self._take(wanted, sources, room)
        return FULL_SECONDS if is_full else self._until_next()

    def _until_next(self) -> float:
        """Seconds until the next queue is due, or the receivers are looked at again."""
        now = self._clock.monotonic()
        return min([self._look_seconds, *(source.next_at - now for source in self._sources if source.next_at > now)])

    def _due(self) -> dict[Wanted, list[QueueSource]]:
        """Group the queues that are due for a look by the tries to take, so that each group needs one query."""
        due: defaultdict[Wanted, list[QueueSource]] = defaultdict(list)
        now = self._clock.monotonic()
        for source in self._sources:
            wanted = self._wanted(source)
            if wanted is None:
                source.is_taken_from, source.next_at = False, now
            elif source.next_at <= now:
                due[wanted].append(source)
        return due

    def _wanted(self, source: QueueSource) -> Wanted | None:
        if known_pauses.hold(source.name):
            return None
        if source.receiver is None:
            return Wanted(AT_ONCE, AT_ONCE, source.poll_seconds, unsent_for=UNNOTED)
        patience = timedelta(seconds=self._seconds)
        if source.receiver.is_down:
            return Wanted(AT_ONCE, AT_ONCE, self._look_seconds, "Pub/Sub does not deliver", patience)
        quiet_for = patience if source.receiver.quiet_seconds >= self._seconds else None
        if not get_publisher().is_available:
            return Wanted(quiet_for, AT_ONCE, self._look_seconds, "Pub/Sub takes no messages", patience)
        if get_publisher().is_refused_by(source.topic):
            return Wanted(quiet_for, patience, self._look_seconds, "Pub/Sub refuses what is published", patience)
        if quiet_for is None:
            return None
        why = "nothing is heard of what was published"
        return Wanted(quiet_for, patience, self._seconds, why, patience, is_doubt=True)

    async def _take(self, wanted: Wanted, sources: Iterable[QueueSource], room: Room) -> bool:
        """Take waiting tries of these queues. Returns whether they fill the room, or all threads."""
        began = self._clock.monotonic()
        names = tuple(source.name for source in sources)
        request = WaitingRequest(
            names, wanted.published_for, wanted.overdue_for, room.tries, room.threads, wanted.unsent_for
        )
        try:
            refs = await self._store.ask(TAKE_WAITING, request)
        except StoreUnavailable:  # the writer has its own event for this
            refs = []
        except Exception as error:
            emit("internal_error", where="fallback", error=repr(error), exc_info=error)
            refs = []
        for ref in refs:
            self._begin(ref)
        now = self._clock.monotonic()
        has_all_threads = 0 < room.threads <= sum(map(_takes_a_thread, refs))
        self._wants_threads_until = now + self._look_seconds if has_all_threads else 0.0
        is_full = has_all_threads or len(refs) >= room.tries
        pause = self._look_seconds if refs else wanted.pause
        cost = COST if wanted.why and not refs else COST_OF_POLLING
        for source in sources:
            source.next_at = now if is_full else now + max(pause, cost * (now - began))
            self._tell(source, wanted, refs)
            if refs and wanted.is_doubt and source.receiver is not None:
                source.receiver.doubt()
        return is_full

    def _tell(self, source: QueueSource, wanted: Wanted, refs: Sequence[TryRef]) -> None:
        """Emit `fallback_begun` once for each period in which tries are taken from a queue."""
        if refs and wanted.why and not source.is_taken_from:
            source.is_taken_from = True
            emit("fallback_begun", queue=source.name, why=wanted.why)


def _takes_a_thread(ref: TryRef) -> bool:
    spec = find(ref.module_name, ref.func_name)
    return spec is not None and not spec.is_coroutine

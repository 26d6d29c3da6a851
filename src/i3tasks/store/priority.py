"""The order of the waiting tries of a queue: by priority, which grows while a try waits.

Pub/Sub knows no priority, so a message is a ticket for its queue, and the rows decide what it brings: a claim takes the
waiting try of the highest priority, and the try that its message named is published anew. The message of the try that
was taken comes later and is refused. Where all priorities are equal, that costs one question for a batch of claims.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import F, Q

from ..conf import get_config
from ..models import TaskExecutionTry, TryState
from ..registry import find
from .database import Instant, Rows, locked, rows, unlocked, with_database_time
from .enqueue import publish_grace
from .postgres.priority import are_any_ranked, displace_held, find_higher, hold
from .postgres.statements import are_known
from .requests import ClaimRequest, TryRef
from .taking import DUE_SINCE, lock, take


class LastLook:
    """The result of this process's last look into the line, on PostgreSQL. It is only a guess at the present state."""

    are_any = False
    """Whether a try waited whose priority was not 0."""


last_look = LastLook()
CLOCKS_DIFFER = timedelta(seconds=10)
"""How far the clocks of callers and workers, who write since when a try waits, may be ahead of the database's."""
Turn = tuple[int, int]
"""The try whose turn it is, and its execution."""


class InLine(NamedTuple):
    """A waiting try. The fields are columns and annotations of its row."""

    pk: int
    task_execution_id: int
    queue_name: str
    priority: int
    due_since: datetime


class First(NamedTuple):
    """A try that is first in line, with the names of its task."""

    item: InLine
    module_name: str
    func_name: str

    @property
    def takes_a_thread(self) -> bool:
        """Whether its body is a sync function, as far as this process knows."""
        spec = find(self.module_name, self.func_name)
        return spec is not None and not spec.is_coroutine


def place_in_line(priority: int, due_since: datetime) -> tuple[float, float]:
    """Sort key of waiting tries, least first. A point of priority is worth `priority_aging_seconds` of waiting."""
    since, aging = due_since.timestamp(), get_config().settings.priority_aging_seconds
    return (-priority, since) if aging is None else (since - priority * aging, since)


def levels(queues: Iterable[str], *, above: int | None = None) -> Iterator[int]:
    """The priorities of the queues' waiting tries, the highest first: each is one look into an index for each queue."""
    waiting = rows(TaskExecutionTry).filter(TryState.PENDING.condition())
    if above is not None:
        waiting = waiting.filter(priority__gt=above)
    names = [*queues]
    level = _highest(waiting, names)
    while level is not None:
        yield level
        level = _highest(waiting.filter(priority__lt=level), names)


def _highest(waiting: Rows, queues: Iterable[str]) -> int | None:
    """Asked for each queue alone: of several at once, the database would read all that wait."""
    ranked = waiting.order_by("-priority").values_list("priority", flat=True)
    highest = [ranked.filter(queue_name=name).first() for name in queues]
    return max((level for level in highest if level is not None), default=None)


def take_turns(requests: Sequence[ClaimRequest], tokens: Sequence[UUID], now: Instant) -> dict[int, Turn] | None:
    """The tries that these requests, which write these tokens, take instead, by the try that they ask for.

    The tries that a request takes and asks for are locked. None: all waiting tries have the same priority, 0.
    """
    asked = Counter([request.try_id for request in requests])
    tickets = {request.try_id: request for request in requests if request.is_ticket and asked[request.try_id] == 1}
    turns = _taken_before([(item, token) for item, token in zip(requests, tokens, strict=True) if item.taken])
    tickets = {try_id: ticket for try_id, ticket in tickets.items() if try_id not in turns}
    if not (turns or (tickets and _are_any_ranked(now))):
        return None
    if tickets and (higher := [first for first in _higher(tickets, now) if first.item.pk not in asked]):
        turns |= _matched(_held(tickets.values(), now), higher, tickets)
        for try_id, ticket in tickets.items():
            ticket.taken[:] = [turns[try_id]] if try_id in turns else []
    return turns


def displace(try_ids: Iterable[int], now: Instant) -> dict[int, TryRef]:
    """Let these tries, whose messages are gone, be published anew: they are due at once."""
    if are_known(now):
        return displace_held([*try_ids], publish_grace(), now)
    tries = lock(_waiting().filter(pk__in=try_ids))
    return {ref.try_id: ref for ref in take(tries, publish_grace(), anew=True, now=now)}


def _taken_before(repeated: Sequence[tuple[ClaimRequest, UUID]]) -> dict[int, Turn]:
    """The tries that repeated requests took before: the database's answer was lost, but the commit was not."""
    if not repeated:
        return {}
    tries = rows(TaskExecutionTry).filter(pk__in=[request.taken[0][0] for request, _ in repeated])
    held = dict(tries.values_list("pk", "claim_token"))
    return {item.try_id: item.taken[0] for item, token in repeated if held.get(item.taken[0][0]) == token}


def _waiting() -> Rows:
    """Tries that wait for a worker, now or later."""
    return rows(TaskExecutionTry).filter(
        TryState.PENDING.condition(), claim_token__isnull=True, dispatch_at__isnull=False
    )


def due_by_now(waiting: Rows) -> Rows:
    """The tries that are due. `due_since` alone does not tell: without a `run_after` it comes from another clock."""
    is_time = Q(run_after__isnull=True) | Q(run_after__lte=F("database_time"))
    return waiting.filter(is_time, due_since__lte=F("database_time") + CLOCKS_DIFFER)


def _due(now: Instant) -> Rows:
    return due_by_now(with_database_time(_waiting().annotate(due_since=DUE_SINCE), now))


def _held(tickets: Iterable[ClaimRequest], now: Instant) -> list[InLine]:
    """Lock the tries that the tickets name. Those that can't be claimed are left out: their tickets bring nothing."""
    by_id = {ticket.try_id: ticket for ticket in tickets}
    if are_known(now):
        found = [InLine(*row) for row in hold([*by_id], now)]
    else:
        due = _due(now).filter(pk__in=by_id, queue_name__isnull=False)
        found = [InLine(*row) for row in locked(due, wait=False).values_list(*InLine._fields)]
    return [
        item
        for item in found
        if by_id[item.pk].execution_id == item.task_execution_id and _may_have(by_id[item.pk], item.queue_name)
    ]


def _may_have(ticket: ClaimRequest, queue: str) -> bool:
    return ticket.queues is None or queue in ticket.queues


def _are_any_ranked(now: Instant) -> bool:
    """Whether any try waits whose priority is not 0: a look into an index that has no others."""
    if are_known(now):
        return last_look.are_any or are_any_ranked()
    return rows(TaskExecutionTry).filter(TryState.PENDING.condition(), ~Q(priority=0)).exists()


def _higher(tickets: Iterable[int], now: Instant) -> list[First]:
    """Lock the first of the tries that wait on the tickets' queues with a higher priority than one of the tickets has.

    Only tries whose message is out: a try that was put off, or handed back for a while, has none.
    """
    if are_known(now):
        last_look.are_any, first = find_higher([*tickets], CLOCKS_DIFFER, now)
        return [First(InLine(*row[:5]), *row[5:]) for row in first]
    named: defaultdict[str, list[int]] = defaultdict(list)
    asked = _waiting().filter(pk__in=[*tickets], queue_name__isnull=False)
    for queue, priority in asked.values_list("queue_name", "priority"):
        named[queue].append(priority)
    higher: list[First] = []
    for queue, priorities in named.items():
        for level in levels([queue], above=min(priorities)):
            of_level = _due(now).filter(queue_name=queue, priority=level, publish_count__gt=0).order_by("due_since")
            found: list[Any] = unlocked(of_level.select_related("task_execution")[: len(priorities)])
            higher += [
                First(
                    InLine(*(getattr(row, name) for name in InLine._fields)),
                    row.task_execution.task_path,
                    row.task_execution.task_name,
                )
                for row in found
            ]
    return higher


def _matched(held: Iterable[InLine], higher: Iterable[First], tickets: Mapping[int, ClaimRequest]) -> dict[int, Turn]:
    """Give the tickets of those that are last in line to those that are first, as far as their priority is higher.

    Sync functions for which there is no thread are passed over: in a coroutine's slot they would wait for one, and
    keep coroutines from running.
    """
    lines: defaultdict[tuple[str, bool], list[_Placed]] = defaultdict(list)
    for placed in sorted(_Placed(_place(first.item), first.item, first.takes_a_thread) for first in higher):
        lines[placed.item.queue_name, placed.takes_a_thread].append(placed)
    spare = _spare_threads(tickets.values())
    turns = {}
    for at, item in sorted(((_place(item), item) for item in held), reverse=True):
        ticket = tickets[item.pk]
        shares = ticket.spare_threads is not None
        kinds = (False,) if shares and spare[ticket.worker_id] <= 0 else (False, True)
        better = min(filter(None, (_before(lines[item.queue_name, kind], item, at) for kind in kinds)), default=None)
        if better is not None:
            lines[item.queue_name, better.takes_a_thread].remove(better)
            spare[ticket.worker_id] -= shares and better.takes_a_thread
            turns[item.pk] = better.item.pk, better.item.task_execution_id
    return turns


class _Placed(NamedTuple):
    place: tuple[float, float]
    item: InLine
    takes_a_thread: bool


def _before(line: Iterable[_Placed], item: InLine, at: tuple[float, float]) -> _Placed | None:
    """The first of the line that goes before `item`, whose place is `at`."""
    return next((placed for placed in line if placed.item.priority > item.priority and placed.place < at), None)


def _spare_threads(tickets: Iterable[ClaimRequest]) -> Counter[str]:
    """The threads that each worker's tickets share: the smallest number that one of its tickets has."""
    spare: Counter[str] = Counter()
    for ticket in tickets:
        if ticket.spare_threads is not None:
            known = spare.get(ticket.worker_id, ticket.spare_threads)
            spare[ticket.worker_id] = min(known, ticket.spare_threads)
    return spare


def _place(item: InLine) -> tuple[float, float]:
    return place_in_line(item.priority, item.due_since)

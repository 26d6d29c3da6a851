"""The indexes for a search: those that hold its executions, each with its order, and the narrowest one that fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db.models import BooleanField, DateTimeField, Exists, F, OuterRef, Q, Value
from django.db.models.functions import Coalesce

from ..models import ExecutionOutcome, TaskExecution, TaskExecutionTry, TryState
from .database import Rows, rows
from .search_conditions import named, of_class_named, within
from .search_terms import Keys, Window
from .states import FAILED_TRY, UNFINISHED, State, tries_of

if TYPE_CHECKING:
    from .search import Search

LARGEST_CHUNK = 5_000
LARGEST_BY_TRIES = 1_000
"""The same where a try of each is read, too."""
_EACH = Value(True, BooleanField())
_ANY = Q()
_DUE_SINCE = Coalesce("run_after", "asked_at", output_field=DateTimeField())

Place = tuple[Any, int]
"""The value of a candidate in its index, and its id."""
Chunk = tuple[list[tuple[Place, int]], Place | None]


@dataclass(frozen=True, slots=True)
class IndexScan:
    """Candidates in the order of an index: executions, or tries."""

    rows: Rows  # its condition is that of the index
    key: Any  # the column or expression of the index
    counts: Any = _EACH  # whether a candidate stands for its execution
    narrows: Q | None = None
    """A further condition, if only few tries meet it: the database passes over the others without returning them."""
    all_match: bool = False
    """Whether the search is for all of these executions."""
    needs_tries: bool = False
    """Whether the search looks at the latest try of each of these executions."""

    @property
    def is_own(self) -> bool:
        return self.rows.model is TaskExecution

    @property
    def is_by_id(self) -> bool:
        return bool(self.key == F("pk"))  # all others are in the order of time

    @property
    def most(self) -> int:
        many = self.narrows is not None or (self.is_own and not self.needs_tries)
        return LARGEST_CHUNK if many else LARGEST_BY_TRIES


def sources(search: Search, now: datetime) -> Iterator[IndexScan]:
    """The indexes to scan, one after the other. Each holds all that the search may find in some of its states."""
    if search.keys is not None:
        yield IndexScan(rows(TaskExecution).filter(pk__in=_resolved(search.keys)), F("pk"))
        return
    states = set(search.states)
    tries = rows(TaskExecutionTry)
    unfinished = [state for state in UNFINISHED if state in states]
    if unfinished:
        yield _unfinished(unfinished, now)
    if State.LOST in states and State.RUNNING not in states:
        yield IndexScan(tries.filter(lease_until__lt=now), F("lease_until"))
    for state, outcome in ((State.FAILED, ExecutionOutcome.FAILED), (State.CANCELLED, ExecutionOutcome.CANCELLED)):
        if state in states or (state is State.FAILED and State.LOST in states):
            all_match = state in states and search.is_by_end
            is_lost_only = state not in states  # only the latest try tells
            yield IndexScan(_ended(search, outcome), F("finished_at"), all_match=all_match, needs_tries=is_lost_only)
    if State.FAILED in states:  # tries of django-i3tasks that failed were never completed
        yield IndexScan(tries.filter(is_completed=False, finished_at__isnull=False), F("asked_at"), _is_last_failure())
    if search.error and not states:
        failed = tries.filter(FAILED_TRY).filter(within("finished_at", _since(search)))
        of_class = of_class_named(search.error)
        yield IndexScan(failed, F("finished_at"), _is_last_failure(of_class), of_class)
    elif not states or State.SUCCEEDED in states:
        yield _any_state(search)


def _ended(search: Search, outcome: ExecutionOutcome) -> Rows:
    window = search.finished or _since(search)
    return (
        rows(TaskExecution)
        .filter(outcome=outcome.value, finished_at__isnull=False)
        .filter(within("finished_at", window))
    )


def _since(search: Search) -> Window:
    """What ended, ended after it was asked for."""
    return Window(search.asked.start)


def _any_state(search: Search) -> IndexScan:
    asked = Window(search.asked.start, min(filter(None, [search.asked.end, search.finished.end]), default=None))
    executions = rows(TaskExecution).filter(within("created_at", asked))
    if search.task:
        return IndexScan(executions.filter(named(search.task)), F("pk"))
    return IndexScan(executions, F("created_at") if asked else F("pk"))


def _is_last_failure(kind: Q = _ANY) -> Any:
    """Whether no later try of the same execution has failed, in this kind: an execution counts by its last failure."""
    same = rows(TaskExecutionTry).filter(kind, task_execution=OuterRef("task_execution"))
    return ~Exists(same.filter(TryState.FAILED.condition(), try_number__gt=OuterRef("try_number")))


def _unfinished(states: Sequence[State], now: datetime) -> IndexScan:
    """The narrowest index for these states: that of running, waiting, deferred, or all unfinished tries."""
    tries = rows(TaskExecutionTry)
    pending = tries.filter(TryState.PENDING.condition()).alias(due_since=_DUE_SINCE)
    if states == [State.RUNNING]:
        return IndexScan(tries.filter(tries_of(State.RUNNING, now)), F("started_at"))
    if states == [State.WAITING]:
        return IndexScan(pending.filter(due_since__lte=now), _DUE_SINCE)
    if states == [State.DEFERRED]:
        return IndexScan(pending.filter(due_since__gt=now), _DUE_SINCE)
    return IndexScan(tries.filter(is_completed=False), F("asked_at"))


def following(source: IndexScan, after: Place | None) -> Rows:
    """The candidates that come after this place, in their order."""
    found = source.rows.annotate(place=source.key, counts=source.counts)
    if after is not None:
        # The first condition alone is what an index answers.
        found = found.filter(place__lte=after[0]).exclude(place=after[0], pk__gte=after[1])
    return found.order_by("-place", "-pk")


def _resolved(keys: Keys) -> set[int]:
    by_uuid = rows(TaskExecution).filter(uuid__in=keys.uuids).values_list("pk", flat=True) if keys.uuids else ()
    by_try = rows(TaskExecutionTry).filter(pk__in=keys.tries) if keys.tries else None
    return {*keys.ids, *by_uuid, *(by_try.values_list("task_execution_id", flat=True) if by_try is not None else ())}

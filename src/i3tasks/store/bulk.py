"""Acting on all executions that a search finds: in slices, each a transaction of its own.

What another transaction holds is skipped, and so is what has changed since it was found, and what the project's own
code (a receiver of `pre_delete`) refuses; the reasons are counted. A slice that is written stays written: to go on
after an interruption, begin again, or from the last slice's `place`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any

from django.db import IntegrityError, InterfaceError, OperationalError, transaction
from django.db.models import Q, TextChoices

from ..core.steps import groups_waited_for
from ..exceptions import StoreUnavailable
from ..models import TaskExecution, TaskExecutionTry, TaskGroup, TaskKey, TryState
from ..telemetry import emit
from .cancel import cancel, retry_failed
from .database import Rows, alias, atomic, locked, rows, unlocked
from .enqueue import publish_grace
from .lock_timeout import LONGEST_LOCK, short_locks
from .search import Hit, Search, Walk, matching
from .states import UNFINISHED, State
from .workflow_links import Ids, above, are_followed, behind_unfinished

SLICE = 200
HELD = "another transaction holds it"
CHANGED = "it has changed meanwhile"
TOLD = "it is told to stop already"
RUNNING = "it is running: cancel it first"
AWAITED = "a group waits for it: cancel it"
FOLLOWED = "what follows it is unfinished"
UNIQUE = "its task is unique, and a call with the same arguments is unfinished"
KEYED = "its idempotency key is in force"
REFERRED = "a row of the project refers to it"


class Act(TextChoices):
    """The acts that can be done to executions."""

    RETRY = "retry"  # one more try, for those that failed or were cancelled
    CANCEL = "cancel"
    RUN_NOW = "run_now"  # executions that were put off, or wait for their next try, become due
    PUT_OFF = "put_off"  # what waits is not run before a given instant
    DISCARD = "discard"  # delete, with tries and results


APPLIES = {
    Act.RETRY: (State.FAILED, State.CANCELLED, State.LOST),
    Act.CANCEL: UNFINISHED,
    Act.RUN_NOW: (State.RETRYING, State.DEFERRED),
    Act.PUT_OFF: (State.WAITING, State.RETRYING, State.DEFERRED),
}
"""The states in which an act makes sense; DISCARD does in all but RUNNING."""
_DOES_NOT_APPLY = {
    Act.RETRY: "it has not failed",
    Act.CANCEL: "it has ended already",
    Act.RUN_NOW: "it is not put off",
    Act.PUT_OFF: "it does not wait",
}
_WAITS = TryState.PENDING.condition() & Q(claim_token__isnull=True)


@dataclass(slots=True)
class Slice:
    """The result of an act on some of the executions."""

    done: list[int] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    tries: list[TaskExecutionTry] = field(default_factory=list)
    """Tries to launch."""
    place: str = ""
    """The place of the last one of these executions: see `search.Walk`."""

    def skip(self, ids: Collection[int], reason: str) -> None:
        if ids:
            self.skipped[reason] += len(ids)


class ActTaken(Exception):
    """The act is another process's now, or was stopped: nothing of the slice is written."""


def narrowed(search: Search, act: Act) -> Search:
    """The search for those of its executions to which the act applies; one that names executions stays as it is."""
    if search.keys is not None or search.states or act not in APPLIES:
        return search
    return replace(search, states=APPLIES[act])


def slices(
    search: Search,
    act: Act,
    *,
    now: datetime,
    until: datetime | None = None,
    after: str = "",
    size: int = SLICE,
    record: Callable[[Slice], None] = lambda made: None,
) -> Iterator[Slice]:
    """Act on all executions that match, slice by slice. The caller launches the tries of each. PUT_OFF needs `until`.

    `record` is called in the transaction of each slice, and may raise ActTaken to undo it and end.
    """
    work = _Work(narrowed(search, act), act, now, until, record)
    hits = iter(Walk(work.search, now, after=after))
    while some := list(islice(hits, size)):
        yield from work.attempt(some)


@dataclass(slots=True)
class _Work:
    """The act, for one slice after the other."""

    search: Search
    act: Act
    now: datetime
    until: datetime | None
    record: Callable[[Slice], None]
    told: set[str] = field(default_factory=set)
    """The reasons that an event has reported: one event for each class of errors."""

    def attempt(self, hits: Sequence[Hit]) -> Iterator[Slice]:
        """Act on these in one transaction; if that waits too long for a lock, or is refused, on each half alone."""
        try:
            with short_locks(LONGEST_LOCK, HELD):
                made = _act(self.search, self.act, [hit.execution_id for hit in hits], self.now, self.until)
                self._record(made, hits)
        except StoreUnavailable:
            reason = HELD
        except IntegrityError:  # of which Django's ProtectedError is one
            reason = REFERRED
        except (ActTaken, OperationalError, InterfaceError):
            raise
        except Exception as error:
            reason = self._tell(error)
        else:
            yield made
            return
        if len(hits) > 1:
            middle = len(hits) // 2
            yield from self.attempt(hits[:middle])
            yield from self.attempt(hits[middle:])
            return
        made = Slice(skipped=Counter({reason: 1}))
        with atomic():
            self._record(made, hits)
        yield made

    def _record(self, made: Slice, hits: Sequence[Hit]) -> None:
        made.place = hits[-1].place
        self.record(made)

    def _tell(self, error: Exception) -> str:
        """The reason to count, and an event with the traceback: one for each class of errors, not for each row."""
        reason = f"{type(error).__name__} was raised"
        if reason not in self.told:
            self.told.add(reason)
            emit("act_failed", act=self.act.value, filter=str(self.search), error=repr(error), exc_info=error)
        return reason


def _act(search: Search, act: Act, ids: Sequence[int], now: datetime, until: datetime | None) -> Slice:
    """Lock what is free, in the order of `locks`; see what still matches; act on that."""
    made = Slice()
    tries = _lock_tries(act, ids)
    free = _free(act, ids) - _held_elsewhere(act, ids, tries)
    made.skip(set(ids) - free, HELD)
    still = matching(search, free, now)
    made.skip(free - still, CHANGED)
    if act in APPLIES:
        able = matching(Search(states=APPLIES[act]), still, now)
        made.skip(still - able, _DOES_NOT_APPLY[act])
        still = able
    if act is Act.RETRY:
        _retry(made, still, now)
    elif act is Act.CANCEL:
        _cancel(made, still, now)
    elif act is Act.DISCARD:
        _discard(made, still, now)
    else:
        _move(made, still, tries, now, until)
    return made


def _lock_tries(act: Act, ids: Sequence[int]) -> list[TaskExecutionTry]:
    """Lock the tries that the act writes. A retry adds one, and writes none."""
    if act is Act.RETRY:
        return []
    tries = rows(TaskExecutionTry).filter(task_execution__in=ids).order_by("pk").defer("error_traceback")
    return unlocked(tries if act is Act.DISCARD else tries.filter(_WAITS), to_delete=act is Act.DISCARD)


def _held_elsewhere(act: Act, ids: Sequence[int], tries: Iterable[TaskExecutionTry]) -> set[int]:
    """The executions whose tries the act needs, and of which another transaction holds a try."""
    if act is Act.RETRY:
        return set()
    wanted = rows(TaskExecutionTry).filter(task_execution__in=ids)
    wanted = wanted if act is Act.DISCARD else wanted.filter(_WAITS)
    missing = wanted.exclude(pk__in=[task_try.pk for task_try in tries])
    return set(missing.values_list("task_execution_id", flat=True))


def _free(act: Act, ids: Sequence[int]) -> set[int]:
    """The executions that no other transaction has locked. They stay locked if the act locks no try after them."""
    executions = rows(TaskExecution).filter(pk__in=ids)
    if act in (Act.RUN_NOW, Act.PUT_OFF):
        return set(ids)
    if act is Act.DISCARD:
        return {row.pk for row in unlocked(executions.order_by("pk").only("pk"), to_delete=True)}
    if act is Act.RETRY:
        return set(locked(executions, wait=False).values_list("pk", flat=True))
    with atomic(savepoint=True):  # `cancel` locks tries that a worker has handed back just now, and then these
        free = set(locked(executions, wait=False).values_list("pk", flat=True))
        transaction.set_rollback(True, using=alias())
    return free


def _retry(made: Slice, ids: set[int], now: datetime) -> None:
    retried = retry_failed(sorted(ids), now=now)
    made.tries = retried.tries
    made.done = [task_try.task_execution_id for task_try in made.tries]
    made.skip(retried.taken, UNIQUE)
    made.skip(ids - {*made.done} - retried.taken, _DOES_NOT_APPLY[Act.RETRY])


def _cancel(made: Slice, ids: set[int], now: datetime) -> None:
    told = rows(TaskExecution).filter(pk__in=ids, cancel_requested_at__isnull=False)
    already = set(told.values_list("pk", flat=True))
    made.skip(already, TOLD)
    made.done = sorted(ids - already)
    made.tries = cancel(made.done)


def _move(made: Slice, ids: set[int], tries: Iterable[TaskExecutionTry], now: datetime, until: datetime | None) -> None:
    """Give waiting tries another time. A message that is under way comes at the wrong time, and is lost."""
    waiting = {task_try.task_execution_id: task_try for task_try in tries if task_try.task_execution_id in ids}
    made.skip(ids - waiting.keys(), CHANGED)
    if until is None:
        moved = [one for one in waiting.values() if one.run_after is not None and one.run_after > now]
        made.skip({*range(len(waiting) - len(moved))}, "it is due already")
        times: dict[str, Any] = {"run_after": None, "dispatch_at": now + publish_grace()}
    else:
        moved = [one for one in waiting.values() if (one.run_after or one.asked_at) < until]
        made.skip({*range(len(waiting) - len(moved))}, "it is due later than that")
        times = {"run_after": until, "dispatch_at": until}
    changed = _tries_of(moved)
    changed.update(**times, publish_count=0)
    made.done = [one.task_execution_id for one in moved]
    if until is None:
        made.tries = list(_tries_of(moved).select_related("task_execution"))


def _tries_of(moved: Sequence[TaskExecutionTry]) -> Rows:
    return rows(TaskExecutionTry).filter(pk__in=[task_try.pk for task_try in moved])


def _discard(made: Slice, ids: set[int], now: datetime) -> None:
    for reason, kept in _kept(ids, now):
        made.skip(ids & kept, reason)
        ids = ids - kept
    rows(TaskExecution).filter(pk__in=ids).only("pk").delete()
    made.done = sorted(ids)


def _kept(ids: Collection[int], now: datetime) -> Iterator[tuple[str, set[int]]]:
    """The executions that are not deleted, by the reason."""
    tries = rows(TaskExecutionTry).filter(task_execution__in=ids)
    running = tries.filter(TryState.RUNNING.condition())
    yield RUNNING, set(running.values_list("task_execution_id", flat=True))
    yield AWAITED, _awaited(ids)
    yield FOLLOWED, _followed(ids, now) if are_followed(ids) else set()
    keys = rows(TaskKey).filter(task_execution__in=ids, expires_at__gt=now, task_execution__outcome__isnull=False)
    yield KEYED, set(keys.values_list("task_execution_id", flat=True))


def _followed(ids: Collection[int], now: datetime) -> set[int]:
    """The executions that unfinished work came from, over any number of links: to cancel it as a chain needs them."""
    following = rows(TaskExecution).filter(previous__in=ids, outcome__isnull=True).values_list("previous_id", flat=True)
    groups = rows(TaskGroup).filter(status=TaskGroup.STATUS_PENDING).values_list("pk", flat=True)
    behind = behind_unfinished(now).merged(above(Ids(groups=set(groups))))
    return {*following, *behind.executions}


def _awaited(ids: Collection[int]) -> set[int]:
    """Members, and steps of members, of groups that are still open."""
    found: dict[int, set[int]] = {}
    executions = rows(TaskExecution).filter(pk__in=ids).only("chain", "outcome", "task_group", "part_of")
    for row in executions:
        chain = row.chain if row.outcome is None else None
        found[row.pk] = {pk for pk in (row.task_group_id, row.part_of_id, *groups_waited_for(chain)) if pk}
    groups = rows(TaskGroup).filter(pk__in=set().union(*found.values()), status=TaskGroup.STATUS_PENDING)
    is_open = set(groups.values_list("pk", flat=True))
    return {pk for pk, waiting in found.items() if waiting & is_open}

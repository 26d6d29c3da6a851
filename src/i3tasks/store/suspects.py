"""Suspects: tries whose last tries died with their workers. Each worker runs few at a time, or one.

If one of them kills its worker, the tries beside it are lost, too. So a try that has no retry left is leased only while
the worker runs no other suspect; and the more often other suspects were lost, the fewer of them run together. That
finds the try that kills workers, and does not hold up hundreds that were lost with a machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol
from uuid import UUID

from ..models import TaskExecution, TaskExecutionTry
from ..registry import policy_of
from .database import rows
from .states import LOST_CLASS

SUSPECT_AFTER = 2
MOST_TOGETHER = 20
"""How many suspects a worker runs at a time while all of them were lost SUSPECT_AFTER times. Each loss halves it."""
PUT_OFF = timedelta(seconds=0.2)
"""How long a suspect waits while others run, and the time between two slots of MOST_TOGETHER that wait."""
LONGEST_PUT_OFF = timedelta(minutes=1)
"""The longest such wait. It grows while no running suspect ends: thousands that ask often would occupy all workers."""
SLOTS = 10


class NumberedTry(Protocol):
    """A try, with its place among those of its execution."""

    @property
    def pk(self) -> int: ...

    @property
    def task_execution_id(self) -> int: ...

    @property
    def try_number(self) -> int: ...


class ClaimableTry(NumberedTry, Protocol):
    """A locked try that its claim may lease."""

    @property
    def claim_token(self) -> UUID | None: ...

    @property
    def database_time(self) -> datetime: ...


class _RunningTry(NamedTuple):
    pk: int
    task_execution_id: int
    try_number: int
    started_at: datetime


@dataclass(slots=True)
class _Company:
    """The suspects that a worker runs: how many, how many of them may run together, and since when the last one."""

    count: int = 0
    at_most: int = MOST_TOGETHER
    since: datetime | None = None

    def admit(self, at_most: int) -> bool:
        """Add a suspect that may run among `at_most`, if that suits it and the others."""
        if self.count >= min(at_most, self.at_most):
            return False
        self.count += 1
        self.at_most = min(at_most, self.at_most)
        return True


def put_off_suspects(claimable: Sequence[ClaimableTry], worker_id: str) -> set[int]:
    """Publish again a little later the suspects in `claimable` that the worker must not run beside others.

    Ids of those put off. It happens before they are leased: a suspect that was leased and then handed back could
    still die with the one that runs. `claimable` are locked tries of one batch, those that the worker has leased
    already (the reply was lost) among them.
    """
    together = _suspects(claimable)
    if not together:
        return set()
    company = _running(worker_id, besides=together)
    # Those that may run among many are first: they end soon, and those that run alone would hold them up.
    suspects = sorted(
        (row for row in claimable if row.pk in together), key=lambda row: (row.claim_token is None, -together[row.pk])
    )
    waiting = [row for row in suspects if not company.admit(together[row.pk])]
    _put_off(waiting, company.since)
    return {row.pk for row in waiting}


def _put_off(waiting: Sequence[ClaimableTry], running_since: datetime | None) -> None:
    if not waiting:
        return
    now = waiting[0].database_time
    slots = min(SLOTS, len(waiting))
    at_most = min(max(PUT_OFF * slots, now - (running_since or now)), LONGEST_PUT_OFF)
    for slot in range(slots):
        rows(TaskExecutionTry).filter(pk__in=[row.pk for row in waiting[slot::slots]]).update(
            dispatch_at=now + at_most * ((slot + 1) / slots),
            publish_count=0,  # its message is gone: to the dispatcher it is new
            updated_at=now,  # or a worker that hears nothing would take it for one that was to be published by now
        )


def _running(worker_id: str, besides: Iterable[int]) -> _Company:
    running = (
        rows(TaskExecutionTry)
        .filter(worker_id=worker_id, lease_until__isnull=False, try_number__gt=SUSPECT_AFTER)
        .exclude(pk__in=besides)
    )
    tries = [_RunningTry(*row) for row in running.values_list(*_RunningTry._fields)]
    together = _suspects(tries)
    since = max((row.started_at for row in tries if row.pk in together), default=None)
    return _Company(len(together), min(together.values(), default=MOST_TOGETHER), since)


def _suspects(tries: Iterable[NumberedTry]) -> dict[int, int]:
    """Ids of those whose last SUSPECT_AFTER tries were lost with their workers: how many may run together with it."""
    late = [row for row in tries if row.try_number > SUSPECT_AFTER]
    if not late:
        return {}
    # Without a token: if only the process of an isolated body died, the worker was there to settle its try.
    before = rows(TaskExecutionTry).filter(
        task_execution__in={row.task_execution_id for row in late},
        error_class=LOST_CLASS,
        claim_token__isnull=True,
    )
    lost: defaultdict[int, set[int]] = defaultdict(set)
    for execution_id, number in before.values_list("task_execution_id", "try_number"):
        lost[execution_id].add(number)
    losses = {row.pk: _losses_before(row.try_number, lost[row.task_execution_id]) for row in late}
    suspects = [row for row in late if losses[row.pk] >= SUSPECT_AFTER]
    allowed = _allowed_tries({row.task_execution_id for row in suspects})
    return {
        row.pk: 1
        if row.try_number >= allowed.get(row.task_execution_id, 0)
        else max(MOST_TOGETHER >> (losses[row.pk] - SUSPECT_AFTER), 1)
        for row in suspects
    }


def _losses_before(number: int, lost: set[int]) -> int:
    """How many tries in a row were lost before this one."""
    first = number
    while first - 1 in lost:
        first -= 1
    return number - first


def _allowed_tries(execution_ids: set[int]) -> dict[int, int]:
    """How many tries each execution may have."""
    if not execution_ids:
        return {}
    calls = rows(TaskExecution).filter(pk__in=execution_ids).values_list("pk", "task_path", "task_name", "options")
    return {pk: policy_of(path, name, options or {}).max_retries + 1 for pk, path, name, options in calls}

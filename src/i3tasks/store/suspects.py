"""Tries that may be what kills workers: each worker runs one of them at a time, or they would die for one another."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from ..exceptions import WorkerLost
from ..models import TaskExecutionTry
from .database import rows

SUSPECT_AFTER = 2
PUT_OFF = timedelta(seconds=2)
"""At most: how long a suspect waits while another one runs. Spread evenly, so that they come back one by one."""
LONGEST_PUT_OFF = timedelta(minutes=1)
"""While one runs for long the others ask ever less often, or thousands of them would keep everybody busy."""
SLOTS = 10
WORKER_LOST = f"{WorkerLost.__module__}.{WorkerLost.__qualname__}"  # as a row names it


def put_off_suspects(claimable: Sequence[Any], worker_id: str) -> set[int]:
    """Publish again a little later all but one of the suspects in `claimable`; all, if the worker runs one already.

    Ids of those put off. It happens before they are leased: a suspect that was leased and then handed back could
    still die with the one that runs. `claimable` are locked tries of one batch, those that the worker has leased
    already (the reply was lost) among them.
    """
    ids = _suspects(claimable)
    if not ids:
        return ids
    suspects = sorted((row for row in claimable if row["pk"] in ids), key=lambda row: row["claim_token"] is None)
    running_since = _suspect_runs_since(worker_id, besides=ids)
    waiting = suspects[1:] if running_since is None else suspects
    _put_off(waiting, running_since)
    return {row["pk"] for row in waiting}


def _put_off(waiting: Sequence[Any], running_since: datetime | None) -> None:
    if not waiting:
        return
    now: datetime = waiting[0]["database_time"]
    at_most = min(max(PUT_OFF, now - (running_since or now)), LONGEST_PUT_OFF)
    slots = min(SLOTS, len(waiting))
    for slot in range(slots):
        rows(TaskExecutionTry).filter(pk__in=[row["pk"] for row in waiting[slot::slots]]).update(
            dispatch_at=now + at_most * ((slot + 1) / slots),
            publish_count=0,  # its message is gone: to the dispatcher it is new
        )


def _suspect_runs_since(worker_id: str, besides: set[int]) -> datetime | None:
    running = (
        rows(TaskExecutionTry)
        .filter(worker_id=worker_id, lease_until__isnull=False, try_number__gt=SUSPECT_AFTER)
        .exclude(pk__in=besides)
    )
    tries: list[Any] = list(running.values("pk", "task_execution_id", "try_number", "started_at"))
    ids = _suspects(tries)
    return min((row["started_at"] for row in tries if row["pk"] in ids), default=None)


def _suspects(tries: Any) -> set[int]:
    """Ids of those whose last SUSPECT_AFTER tries were lost with their workers."""
    late = [row for row in tries if row["try_number"] > SUSPECT_AFTER]
    if not late:
        return set()
    # Without a token: if only the process of an isolated body died, the worker was there to settle its try.
    before = rows(TaskExecutionTry).filter(
        task_execution__in={row["task_execution_id"] for row in late},
        error_class=WORKER_LOST,
        claim_token__isnull=True,
    )
    lost = set(before.values_list("task_execution_id", "try_number"))
    return {
        row["pk"]
        for row in late
        if all((row["task_execution_id"], row["try_number"] - back) in lost for back in range(1, SUSPECT_AFTER + 1))
    }

"""The workers' rows: each process writes its own with every heartbeat, and a new process deletes old ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from ..conf import get_config
from ..models import Worker, WorkerRole, WorkerState
from .database import DATABASE_TIME, Instant, Rows, atomic, before, locked, rows, unlocked
from .deploys import note_deploy
from .requests import LOCKED, Locked

LATE = timedelta(minutes=2)
"""How long after its last heartbeat a process counts as gone, and a dispatcher or a beat as missing."""
KEPT = timedelta(days=1)
"""How long the row of a process that has stopped or died is kept."""
MOST_TROUBLES = 5
_AT_EACH_HEARTBEAT = ("state", "concurrency", "running", "trouble")
_AT_THE_FIRST = ("role", "host", "pid", "version", "release")


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """The facts about a process that it writes itself."""

    id: str
    role: WorkerRole
    state: WorkerState
    host: str
    pid: int
    version: str
    queues: Sequence[str]
    concurrency: int
    running: int
    is_new: bool
    """This is its first heartbeat."""
    passed: frozenset[str]
    """The columns, `dispatched_at` and `beat_at`, of those that got through since the last heartbeat."""
    release: str = ""
    """The project's release; "" where I3TASKS names none."""
    trouble: str = ""
    """Why Pub/Sub is not available to the process; "" while it is."""


class Heartbeat(Protocol):
    """One process's heartbeat. Its facts are read when it is carried out, not when it is asked for."""

    def facts(self) -> WorkerFacts: ...


def note_workers(
    requests: Sequence[Heartbeat], *, now: Instant = DATABASE_TIME, wait: bool = False
) -> list[Locked | None]:
    """Write the processes' rows, each by one statement if it has one. A new process deletes old ones.

    Locked: another transaction holds the process's row. Ask again later.
    """
    with atomic():
        return [_write(request.facts(), now, wait) for request in requests]


def living_workers(now: datetime) -> Rows:
    """The rows of processes that had a heartbeat lately, and have not stopped."""
    return _living(now).order_by("id")


def is_alive(worker: Worker, now: datetime) -> bool:
    """The same of a row that has been read."""
    return worker.state != WorkerState.STOPPED and worker.heartbeat_at >= now - gone_after()


async def broker_troubles(now: datetime) -> list[str]:
    """Why Pub/Sub is not available to processes that live, each reason once."""
    troubled = living_workers(now).exclude(trouble="").order_by("trouble").values_list("trouble", flat=True)
    return [trouble async for trouble in troubled.distinct()[:MOST_TROUBLES]]


def gone_after() -> timedelta:
    """How long after its last heartbeat a process counts as gone."""
    return max(LATE, 3 * timedelta(seconds=get_config().settings.heartbeat_seconds))


def listed(workers: Sequence[Worker], now: datetime) -> list[dict[str, Any]]:
    """The rows as the command and the endpoints show them. `state` is "gone" for one that died."""
    return [
        {
            "id": worker.pk,
            "role": worker.role,
            "state": worker.state if worker.state == WorkerState.STOPPED or is_alive(worker, now) else "gone",
            "host": worker.host,
            "pid": worker.pid,
            "version": worker.version,
            "release": worker.release,
            "queues": worker.queues,
            "concurrency": worker.concurrency,
            "running": worker.running,
            "started_at": worker.started_at,
            "heartbeat_at": worker.heartbeat_at,
            "dispatched_at": worker.dispatched_at,
            "beat_at": worker.beat_at,
        }
        for worker in workers
    ]


def _living(now: Instant) -> Rows:
    return rows(Worker).exclude(state=WorkerState.STOPPED).filter(heartbeat_at__gte=before(now, gone_after()))


def _write(facts: WorkerFacts, now: Instant, wait: bool) -> Locked | None:
    first: dict[str, Any] = {**{name: getattr(facts, name) for name in _AT_THE_FIRST}, "started_at": now}
    changed: dict[str, Any] = {
        **{name: getattr(facts, name) for name in _AT_EACH_HEARTBEAT},
        **dict.fromkeys(facts.passed, now),
        **(first if facts.is_new else {}),
        "queues": list(facts.queues),
        "heartbeat_at": now,
    }
    mine = rows(Worker).filter(pk=facts.id)
    if not rows(Worker).filter(pk__in=locked(mine, wait=wait).values("pk")).update(**changed):
        if mine.exists():
            return LOCKED
        # A process that shares the row may have written it just now.
        rows(Worker).bulk_create(
            [Worker(id=facts.id, **{**first, **changed})],
            update_conflicts=True,
            unique_fields=["id"],
            update_fields=[*changed],
        )
    if facts.is_new:
        if facts.release and not _living(now).filter(release=facts.release).exclude(pk=facts.id).exists():
            note_deploy(facts.release, now)
        gone = unlocked(rows(Worker).filter(heartbeat_at__lt=before(now, KEPT)).only("pk"), to_delete=True)
        rows(Worker).filter(pk__in=[worker.pk for worker in gone]).delete()
    return None

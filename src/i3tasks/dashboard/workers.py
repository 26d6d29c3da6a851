"""The page of the workers: the living ones with the tries that they run, and those that ended lately."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse

from ..core.clock import current_clock
from ..models import TaskExecutionTry, TryState, Worker
from ..store.database import rows
from ..store.workers import is_alive, living_workers
from .access import board_page
from .rendering import page

MOST_WORKERS = 100
MOST_RUNNING = 1_000
MOST_SHOWN = 20
"""Most tries of one worker that are shown."""


@dataclass(frozen=True, slots=True)
class ShownWorker:
    """One process, and the tries that it runs, those that run longest first."""

    row: Worker
    is_alive: bool
    tries: Sequence[Any]

    @property
    def state(self) -> str:
        return self.row.state if self.is_alive or self.row.state == "stopped" else "gone"

    @property
    def shown(self) -> Sequence[Any]:
        return self.tries[:MOST_SHOWN]

    @property
    def more(self) -> int:
        return max(len(self.tries) - MOST_SHOWN, 0)


@board_page
def workers(request: HttpRequest) -> HttpResponse:
    """Show the processes that live, and those that have gone in the last day."""
    now = current_clock().now()
    living = list(living_workers(now)[: MOST_WORKERS + 1])
    gone = rows(Worker).exclude(pk__in=[worker.pk for worker in living]).order_by("-heartbeat_at")
    running = running_tries()
    return page(
        request,
        "workers",
        "workers",
        workers=[facts(worker, now, running) for worker in living[:MOST_WORKERS]],
        has_more=len(living) > MOST_WORKERS,
        gone=[facts(worker, now, running) for worker in gone[:MOST_SHOWN]],
        busy=sum(worker.running for worker in living),
        slots=sum(worker.concurrency for worker in living),
    )


def running_tries() -> dict[str, list[Any]]:
    """The running tries by the ids of their workers: at most MOST_RUNNING, those that run longest."""
    found = rows(TaskExecutionTry).filter(TryState.RUNNING.condition()).order_by("started_at")
    found = found.select_related("task_execution").only(
        "worker_id",
        "started_at",
        "try_number",
        "lease_until",
        "task_execution__task_path",
        "task_execution__task_name",
        "task_execution__queue_name",
        "task_execution__cancel_requested_at",
    )
    by_worker: defaultdict[str, list[Any]] = defaultdict(list)
    for task_try in found[:MOST_RUNNING]:
        by_worker[task_try.worker_id or ""].append(task_try)
    return by_worker


def facts(worker: Worker, now: datetime, running: dict[str, list[Any]]) -> ShownWorker:
    """The facts about one process that the page shows."""
    return ShownWorker(worker, is_alive(worker, now), running.get(worker.pk, []))

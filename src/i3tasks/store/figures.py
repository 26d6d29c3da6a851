"""The figures that are read from the rows: waiting, running and deferred tries of each queue, the outbox, the workers.

Each is read by an index that holds unfinished tries only, and counts at most MOST_COUNTED rows: so it costs
milliseconds, however many rows have finished and however long a backlog is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db.models import DateTimeField, Max, Q
from django.db.models.functions import Coalesce

from ..conf import get_config, queue_or_default
from ..models import QueuePause, TaskExecution, TaskExecutionTry, TryState, Worker, WorkerState
from .database import Rows, atomic, in_index_order, rows
from .workers import living_workers
from .workflow_links import LONGEST_DELIVERY

MOST_COUNTED = 3_000
"""Most rows of a state that are counted. Beyond it, the counts are those of the rows that have waited longest."""
WAITING, RUNNING, DEFERRED = "waiting", "running", "deferred"
DUE_SINCE = Coalesce("run_after", "asked_at", output_field=DateTimeField())


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of the rows at one instant. Queues are named as in I3TASKS. Ages are in seconds."""

    tries: Mapping[tuple[str, str], int]
    """How many tries there are, by queue and state."""
    oldest_waiting: Mapping[str, float]
    """How long the first try of each queue has waited since it became due."""
    is_cut: bool
    """Whether a state has more rows than were counted."""
    unpublished: int
    oldest_unpublished: float
    workers: Mapping[tuple[str, str], int]
    """Living processes, by role and state."""
    queue_workers: Mapping[str, int]
    """Living processes that run the queue, and are not draining."""
    paused: Mapping[str, QueuePause]
    """The pauses that are on, by the queue."""
    slots: int
    """How many tries the living processes could run at a time."""
    busy: int
    """How many tries the living processes ran at their last heartbeats."""
    dispatched_at: datetime | None
    """When a dispatcher of any process last got through."""
    beat_at: datetime | None


def figures(now: datetime) -> Figures:
    """Read the figures."""
    with atomic(), in_index_order():
        waiting, oldest = _waiting(now)
        deferred = _deferred(now)
    states = {WAITING: waiting, RUNNING: _running(), DEFERRED: deferred}
    unpublished, due_since = _outbox(now)
    living = list(living_workers(now))
    at_work = [worker for worker in living if worker.state == WorkerState.RUNNING]
    queue_workers = Counter(queue for worker in at_work for queue in worker.queues)
    paused = {pause.queue_name: pause for pause in rows(QueuePause)}
    queues = {*get_config().queues, *queue_workers, *paused}.union(*states.values())
    return Figures(
        tries={(queue, state): counts[queue] for state, counts in states.items() for queue in queues},
        oldest_waiting={queue: _age(oldest.get(queue), now) for queue in queues},
        is_cut=max(unpublished, *(counts.total() for counts in states.values())) > MOST_COUNTED,
        unpublished=unpublished,
        oldest_unpublished=_age(due_since, now),
        workers=Counter((worker.role, worker.state) for worker in living),
        queue_workers={queue: queue_workers[queue] for queue in queues},
        paused=paused,
        slots=sum(worker.concurrency for worker in at_work),
        busy=sum(worker.running for worker in living),
        **rows(Worker).aggregate(dispatched_at=Max("dispatched_at"), beat_at=Max("beat_at")),
    )


def _waiting(now: datetime) -> tuple[Counter[str], dict[str, datetime]]:
    """Tries that could run now, by queue, and since when the first of each waits.

    A try of django-i3tasks that is so old that its message is gone does not count.
    """
    is_looked_after = Q(dispatch_at__isnull=False) | Q(asked_at__gte=now - LONGEST_DELIVERY)
    pending = rows(TaskExecutionTry).filter(TryState.PENDING.condition(), is_looked_after)
    counts, firsts = _by_queue(pending.alias(due_since=DUE_SINCE).filter(due_since__lte=now).order_by("due_since"))
    due_since = dict(rows(TaskExecutionTry).filter(pk__in=firsts.values()).values_list("pk", DUE_SINCE))
    # One that has been claimed and deleted since then has no time.
    return counts, {queue: due_since[pk] for queue, pk in firsts.items() if pk in due_since}


def _running() -> Counter[str]:
    return _by_queue(rows(TaskExecutionTry).filter(lease_until__isnull=False))[0]


def _deferred(now: datetime) -> Counter[str]:
    pending = rows(TaskExecutionTry).filter(TryState.PENDING.condition(), dispatch_at__isnull=False)
    # In the order of their index: the database would look for them among all that wait.
    return _by_queue(pending.alias(due_since=DUE_SINCE).filter(due_since__gt=now).order_by("due_since"))[0]


def _by_queue(tries: Rows) -> tuple[Counter[str], dict[str, int]]:
    """Count the first MOST_COUNTED of the tries, and one more, by queue. Gives the id of the first of each, too.

    Tries that older releases wrote name no queue, and their executions are looked up: in a statement of its own, as
    for a join the database may read all executions.
    """
    found = list(tries.values_list("pk", "queue_name", "task_execution_id")[: MOST_COUNTED + 1])
    unnamed = [execution_id for _, name, execution_id in found if not name]
    executions = rows(TaskExecution).filter(pk__in=unnamed)
    names = dict(executions.values_list("pk", "queue_name")) if unnamed else {}
    counts: Counter[str] = Counter()
    firsts: dict[str, int] = {}
    for pk, name, execution_id in found:
        queue = queue_or_default(name or names.get(execution_id))
        counts[queue] += 1
        firsts.setdefault(queue, pk)
    return counts, firsts


def _outbox(now: datetime) -> tuple[int, datetime | None]:
    """Tries that are due to be published and never were: how many, and since when the first."""
    due = rows(TaskExecutionTry).filter(dispatch_at__lte=now, publish_count=0).order_by("dispatch_at")
    first = due.values_list("dispatch_at", flat=True).first()
    return (0, None) if first is None else (due[: MOST_COUNTED + 1].count(), first)


def _age(instant: datetime | None, now: datetime) -> float:
    return 0.0 if instant is None else max((now - instant).total_seconds(), 0.0)

"""The requests that the layers above make of the store, and its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Protocol
from uuid import UUID

from ..conf import queue_or_default
from ..core.outcome import Outcome
from ..core.record import record
from ..models import TaskExecutionTry


@record
class TryRef:
    """A try that is due to be published. `dispatch_at` as read: the confirmation compares it."""

    try_id: int
    execution_id: int
    module_name: str
    func_name: str
    queue_name: str | None
    dispatch_at: datetime
    trace_context: Any = field(default=None, compare=False)
    priority: int = field(default=0, compare=False)
    is_published: bool = field(default=False, compare=False)
    """Whether it was written as published: workers find it in the database, and there is no message to send."""

    @classmethod
    def of(cls, task_try: TaskExecutionTry, *, is_published: bool = False) -> TryRef:
        """The reference to a try. Its `task_execution` should be loaded."""
        execution = task_try.task_execution
        assert task_try.dispatch_at is not None, "a try that is running or terminal is not published"
        return cls(
            try_id=task_try.pk,
            execution_id=execution.pk,
            module_name=execution.task_path,
            func_name=execution.task_name,
            queue_name=execution.queue_name,
            dispatch_at=task_try.dispatch_at,
            trace_context=execution.trace_context,
            priority=execution.priority,
            is_published=is_published,
        )

    @classmethod
    def of_new(cls, task_try: TaskExecutionTry) -> TryRef:
        """The reference to a try that was written just now: see `enqueue.publishing`."""
        return cls.of(task_try, is_published=task_try.publish_count > 0)


class Refusal(Enum):
    """Why a claim was refused."""

    UNKNOWN = "unknown"  # no such row
    COMPLETED = "completed"
    LEASED = "leased"  # it runs elsewhere; the end of the lease, not this message, recovers it
    CANCELLED = "cancelled"
    NOT_DUE = "not_due"  # its `run_after` is still to come
    PAUSED = "paused"  # its queue is; it is due again when that is resumed
    LOCKED = "locked"  # another transaction has held the row for a second
    SUSPECT = "suspect"  # may kill its worker, which runs such a try already; it is published again later


class Locked(Enum):
    """Another open transaction holds the row: ask again a little later."""

    LOCKED = "locked"


LOCKED = Locked.LOCKED


@record
class ClaimRequest:
    """A request for the lease on a try. `token` is fresh; a repeat after a lost answer brings the same one."""

    try_id: int
    execution_id: int
    token: UUID
    worker_id: str
    lease_seconds: float
    queues: frozenset[str | None] | None = None
    """The queues whose tries may be leased; tries of others do not exist for this request. None: all queues."""
    is_ticket: bool = False
    """Whether a try of the same queue that has a higher priority may be leased instead, as its turn is first."""
    taken: list[tuple[int, int]] = field(default_factory=list, compare=False, repr=False)
    """The try and the execution that were leased instead. A repeat, after a lost answer to the commit, has the same."""
    spare_threads: int | None = None
    """Threads that were free when it was asked, and that all tickets of the worker share. A ticket brings no sync
    function when none is left. None: this one has a thread of its own, or needs none for any try that it brings."""
    heeds_pauses: bool = True
    """Whether tries of paused queues are refused. A caller who runs a call in place asks for no worker's time."""


def scheduled_by(options: Any) -> dict[str, str]:
    """The name of the schedule that enqueued the call, as a field of events; nothing for other calls."""
    schedule = options.get("schedule") if isinstance(options, dict) else None
    return {"schedule": schedule} if isinstance(schedule, str) else {}


def slot_of(options: Any) -> datetime | None:
    """The time for which a schedule enqueued the call; None for other calls."""
    slot = options.get("slot") if isinstance(options, dict) else None
    try:
        return datetime.fromisoformat(slot) if isinstance(slot, str) else None
    except ValueError:
        return None


@record
class Claimed:
    """A lease, with the call to run. Arguments are JSON data as stored."""

    try_id: int
    execution_id: int
    execution_uuid: UUID
    token: UUID
    try_number: int
    module_name: str
    func_name: str
    args: list[Any]
    kwargs: dict[str, Any]
    overrides: dict[str, Any]
    queue_name: str | None
    asked_at: datetime
    due_since: datetime  # its `run_after`, or when it was asked for
    started_at: datetime
    worker_id: str = ""
    trace_context: Any = None
    displaced: TryRef | None = None
    """The try whose message brought this one, which has a higher priority. It is to be published anew."""

    @property
    def call(self) -> tuple[str, str, Any, Any]:
        """The names of the task, and its arguments."""
        return self.module_name, self.func_name, self.args, self.kwargs

    @property
    def queue_time(self) -> float:
        """For how many seconds the try waited since it was due."""
        return max((self.started_at - self.due_since).total_seconds(), 0.0)

    @property
    def facts(self) -> dict[str, Any]:
        """The fields about the try in its events."""
        return {
            "execution_id": self.execution_id,
            "execution_uuid": self.execution_uuid,
            "try_id": self.try_id,
            "task": f"{self.module_name}.{self.func_name}",
            "queue": queue_or_default(self.queue_name),
            "try_number": self.try_number,
            "worker": self.worker_id,
            **scheduled_by(self.overrides),
        }


@record
class Settlement:
    """The report of a lease's holder on how its try ended."""

    try_id: int
    execution_id: int
    token: UUID
    outcome: Outcome
    travels: Mapping[str, Any] | None = None
    """The context that the calls that follow take along; None: that of the execution."""


@dataclass(frozen=True, slots=True)
class NextTry:
    """The try that follows a failed one."""

    try_id: int
    try_number: int
    asked_at: datetime

    @classmethod
    def of(cls, task_try: TaskExecutionTry) -> NextTry:
        """The public facts of a try that was just written."""
        return cls(task_try.pk, task_try.try_number, task_try.asked_at)


@record
class Settled:
    """The settlement was recorded. `due` are the tries that it created and that may be published at once."""

    due: tuple[TryRef, ...] = ()
    at: datetime | None = field(default=None, compare=False)
    """The database's time of it."""
    next_try: NextTry | None = field(default=None, compare=False)
    """The retry, if the try failed and one was written."""
    is_cancelled: bool = field(default=False, compare=False)
    """Whether the execution ended here because its cancellation was requested."""


class Stale(Enum):
    """The lease was lost before: nothing was changed."""

    STALE = "stale"


STALE = Stale.STALE


class RenewRequest(Protocol):
    """One process's heartbeat. Its leases are read when the heartbeat is carried out, not when it is asked for."""

    @property
    def leases(self) -> Mapping[int, UUID]:
        """The token of each try that the process runs, by the try's id."""
        ...

    @property
    def lease_seconds(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Renewed:
    """The answer to a heartbeat: ids of tries whose lease is lost, and of those whose cancellation was requested."""

    lost: frozenset[int]
    cancelled: frozenset[int]
    renewed: frozenset[int] = field(default=frozenset(), compare=False)
    """Tries whose lease was moved on. A try that another transaction has locked is neither renewed nor lost."""
    stacks: frozenset[int] = field(default=frozenset(), compare=False)
    """Tries whose stack is asked for."""

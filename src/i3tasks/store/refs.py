"""What travels between the store and the layers above."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Protocol
from uuid import UUID

from ..outcome import Outcome


@dataclass(frozen=True, slots=True)
class TryRef:
    """A try that is due to be published. `dispatch_at` as read: the confirmation compares it."""

    try_id: int
    execution_id: int
    module_name: str
    func_name: str
    queue_name: str | None
    dispatch_at: datetime


class Refusal(Enum):
    """Why a claim was refused."""

    UNKNOWN = "unknown"  # no such row
    COMPLETED = "completed"
    LEASED = "leased"  # running elsewhere; the lease, not this message, recovers it
    CANCELLED = "cancelled"
    NOT_DUE = "not_due"  # its `run_after` is still to come
    SUSPECT = "suspect"  # may be what kills workers, and this one runs such a try already; it will be published again


class Locked(Enum):
    """Somebody's open transaction holds the row: ask again a little later."""

    LOCKED = "locked"


LOCKED = Locked.LOCKED


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """Asks for the lease on a try. `token` is fresh; on a repeat after a lost answer it is the same one."""

    try_id: int
    execution_id: int
    token: UUID
    worker_id: str
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class Claimed:
    """A lease, and what to run. Arguments are JSON data as stored."""

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
    due_since: datetime  # its `run_after`, or when it was asked for
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the holder of a lease says about how its try ended."""

    try_id: int
    execution_id: int
    token: UUID
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Settled:
    """The settlement was recorded. `due` are the tries that it created and that may be published at once."""

    due: tuple[TryRef, ...] = ()


class Stale(Enum):
    """The lease was lost before: nothing was changed."""

    STALE = "stale"


STALE = Stale.STALE


class RenewRequest(Protocol):
    """One process's heartbeat. Read when it is carried out, not when it is asked for."""

    @property
    def leases(self) -> Mapping[int, UUID]:
        """Try id -> token of everything that the process runs."""
        ...

    @property
    def lease_seconds(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Renewed:
    """Try ids that are no longer ours, and those whose execution somebody asked to cancel."""

    lost: frozenset[int]
    cancelled: frozenset[int]

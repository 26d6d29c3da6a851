"""The data of a claim: the tries that are asked for, the workers that ask, and the answers so far."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from .requests import Claimed, ClaimRequest, Locked, Refusal


class Candidate(NamedTuple):
    """A try that was asked for, locked. The fields are columns and annotations of its row."""

    pk: int
    task_execution_id: int
    try_number: int
    asked_at: datetime
    is_completed: bool
    has_result: bool
    claim_token: UUID | None
    run_after: datetime | None
    database_time: datetime


class Call(NamedTuple):
    """An execution, as far as running it needs to know. The fields are columns of its row."""

    pk: int
    uuid: UUID
    task_path: str
    task_name: str
    task_args: list[Any]
    task_kwargs: dict[str, Any]
    options: dict[str, Any] | None
    queue_name: str | None
    cancel_requested_at: datetime | None
    trace_context: Any
    pause_id: int | None


class Holder(NamedTuple):
    """The worker that asks, and the length of its leases."""

    worker_id: str
    lease_seconds: float

    @classmethod
    def of(cls, request: ClaimRequest) -> Holder:
        return cls(request.worker_id, request.lease_seconds)


@dataclass(slots=True)
class Bid:
    """A request with the try that it may win, and its answer once there is one."""

    request: ClaimRequest
    candidate: Candidate | None
    call: Call | None
    answer: Claimed | Refusal | Locked | None = None


@dataclass(slots=True)
class ClaimBatch:
    """The bids of one holder, with the token of the leases that they win."""

    holder: Holder
    token: UUID
    bids: list[Bid]

    def open(self) -> list[Bid]:
        """The bids that have not been answered."""
        return [bid for bid in self.bids if bid.answer is None]

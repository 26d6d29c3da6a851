"""A worker's hold on a try: take it, keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Exists, OuterRef
from django.db.models.expressions import Combinable

from ..models import TaskExecution, TaskExecutionResult, TaskExecutionTry
from .database import atomic, locked, rows, with_database_time
from .refs import LOCKED, Claimed, ClaimRequest, Locked, Refusal, Renewed, RenewRequest
from .suspects import put_off_suspects

_TRY_COLUMNS = (
    "pk",
    "task_execution_id",
    "try_number",
    "asked_at",
    "is_completed",
    "has_result",
    "claim_token",
    "run_after",
    "started_at",
    "database_time",
)
_EXECUTION_COLUMNS = (
    "pk",
    "uuid",
    "task_path",
    "task_name",
    "task_args",
    "task_kwargs",
    "options",
    "queue_name",
    "cancel_requested_at",
)


def claim(
    requests: Sequence[ClaimRequest], *, now: Combinable | None = None, wait: bool = False
) -> list[Claimed | Refusal | Locked]:
    """Lease each try that is claimable to its requester; a try asked for twice goes to the first.

    Claimable: not completed, no token, no cancel request, `run_after` past. An expired lease is not claimable:
    `dispatching.expire_leases` ends such a try and writes the next one.
    """
    with atomic():
        tries = {row["pk"]: row for row in _lock_tries(requests, now, wait)}
        executions = {row["pk"]: row for row in _executions(tries.values())}
        token = requests[0].token  # one for the whole batch, so that one statement can write it
        answers: list[Refusal | Locked | None] = [
            _judge(request, tries.get(request.try_id), executions, token) for request in requests
        ]
        hidden = _existing(request.try_id for request in requests if request.try_id not in tries)
        won: dict[int, int] = {}  # try id -> index of the request that gets it
        for index, (request, answer) in enumerate(zip(requests, answers, strict=True)):
            if answer is None and won.setdefault(request.try_id, index) != index:
                answers[index] = Refusal.LEASED
            elif answer is Refusal.UNKNOWN and request.try_id in hidden:
                answers[index] = LOCKED
        for try_id in put_off_suspects([tries[try_id] for try_id in won], requests[0].worker_id):
            answers[won.pop(try_id)] = Refusal.SUSPECT
        _lease(list(won), token, requests[0], tries)
        return [
            _claimed(tries[request.try_id], executions, token) if answer is None else answer
            for request, answer in zip(requests, answers, strict=True)
        ]


def renew(
    requests: Sequence[RenewRequest], *, now: Combinable | None = None, wait: bool = False
) -> list[Renewed | Locked]:
    """Move the leases' end on. Rows that somebody has locked keep theirs until the next heartbeat."""
    with atomic():
        return [_renew(request, now, wait) for request in requests]


def _lock_tries(requests: Sequence[ClaimRequest], now: Combinable | None, wait: bool) -> Any:
    ids = {request.try_id for request in requests}
    # django-i3tasks records a failed try by its result only, and its message is likely to come again.
    has_result = Exists(rows(TaskExecutionResult).filter(task_execution_try=OuterRef("pk")))
    tries = rows(TaskExecutionTry).filter(pk__in=ids).annotate(has_result=has_result)
    return locked(with_database_time(tries, now), wait=wait).values(*_TRY_COLUMNS)


def _executions(tries: Any) -> Any:
    ids = {row["task_execution_id"] for row in tries}
    return rows(TaskExecution).filter(pk__in=ids).values(*_EXECUTION_COLUMNS) if ids else []


def _existing(ids: Any) -> set[int]:
    missing = list(ids)
    return set(rows(TaskExecutionTry).filter(pk__in=missing).values_list("pk", flat=True)) if missing else set()


def _judge(request: ClaimRequest, row: Any, executions: dict[int, Any], token: Any) -> Refusal | None:
    if row is None or row["task_execution_id"] != request.execution_id:
        return Refusal.UNKNOWN
    if row["is_completed"] or row["has_result"]:
        return Refusal.COMPLETED
    if row["claim_token"] is not None:
        return None if row["claim_token"] == token else Refusal.LEASED
    if executions[row["task_execution_id"]]["cancel_requested_at"] is not None:
        return Refusal.CANCELLED
    if row["run_after"] is not None and row["run_after"] > row["database_time"]:
        return Refusal.NOT_DUE
    return None


def _lease(ids: list[int], token: Any, request: ClaimRequest, tries: dict[int, Any]) -> None:
    if not ids:
        return
    database_time: datetime = tries[ids[0]]["database_time"]
    rows(TaskExecutionTry).filter(pk__in=ids).update(
        claim_token=token,
        worker_id=request.worker_id,
        started_at=database_time,
        lease_until=database_time + timedelta(seconds=request.lease_seconds),
        dispatch_at=None,
        updated_at=database_time,
    )


def _claimed(row: Any, executions: dict[int, Any], token: Any) -> Claimed:
    execution = executions[row["task_execution_id"]]
    return Claimed(
        try_id=row["pk"],
        execution_id=execution["pk"],
        execution_uuid=execution["uuid"],
        token=token,
        try_number=row["try_number"],
        module_name=execution["task_path"],
        func_name=execution["task_name"],
        args=execution["task_args"],
        kwargs=execution["task_kwargs"],
        overrides=execution["options"] or {},
        queue_name=execution["queue_name"],
        due_since=row["run_after"] or row["asked_at"],
        started_at=row["database_time"],
    )


def _renew(request: RenewRequest, now: Combinable | None, wait: bool) -> Renewed:
    tokens = request.leases
    tries = rows(TaskExecutionTry).filter(pk__in=tokens, lease_until__isnull=False)
    held = [
        (pk, database_time)
        for pk, token, database_time in locked(with_database_time(tries, now), wait=wait).values_list(
            "pk", "claim_token", "database_time"
        )
        if token == tokens[pk]
    ]
    if held:
        lease_until = held[0][1] + timedelta(seconds=request.lease_seconds)
        rows(TaskExecutionTry).filter(pk__in=[pk for pk, _ in held]).update(lease_until=lease_until)
    return _report(tokens)


def _report(tokens: Mapping[int, Any]) -> Renewed:
    states = {
        pk: (token, cancel_requested_at)
        for pk, token, cancel_requested_at in rows(TaskExecutionTry)
        .filter(pk__in=tokens, lease_until__isnull=False)
        .values_list("pk", "claim_token", "task_execution__cancel_requested_at")
    }
    lost = frozenset(pk for pk, token in tokens.items() if pk not in states or states[pk][0] != token)
    return Renewed(
        lost=lost,
        cancelled=frozenset(pk for pk, (_, cancel) in states.items() if cancel is not None and pk not in lost),
    )

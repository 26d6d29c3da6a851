"""Heartbeats: a worker keeps the tries that it runs by renewing their leases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from ..models import TaskExecutionTry
from .database import DATABASE_TIME, Instant, atomic, locked, rows, with_database_time
from .postgres.marking import renew_held
from .postgres.statements import are_known
from .requests import Locked, Renewed, RenewRequest
from .stacks import asked_for


def renew(
    requests: Sequence[RenewRequest], *, now: Instant = DATABASE_TIME, wait: bool = False
) -> list[Renewed | Locked]:
    """Move the leases' end on. Rows that another transaction has locked keep theirs until the next heartbeat."""
    with atomic():
        wanted = asked_for()
        return [
            replace(_renew(request, now, wait), stacks=wanted & request.leases.keys() if wanted else wanted)
            for request in requests
        ]


def _renew(request: RenewRequest, now: Instant, wait: bool) -> Renewed:
    if not are_known(now):
        return _renew_others(request.leases, request.lease_seconds, now, wait)
    tokens = dict(request.leases)  # it may change meanwhile
    renewed = renew_held(tokens, request.lease_seconds, now, wait)
    others = {pk: token for pk, token in tokens.items() if pk not in renewed}
    report = _report(others, frozenset(renewed)) if others else Renewed(frozenset(), frozenset(), frozenset(renewed))
    asked = frozenset(pk for pk, is_cancelled in renewed.items() if is_cancelled)
    return Renewed(report.lost, report.cancelled | asked, report.renewed)


def _renew_others(tokens: Mapping[int, UUID], lease_seconds: float, now: Instant, wait: bool) -> Renewed:
    tries = rows(TaskExecutionTry).filter(pk__in=tokens, lease_until__isnull=False)
    held = [
        (pk, database_time)
        for pk, token, database_time in locked(with_database_time(tries, now), wait=wait).values_list(
            "pk", "claim_token", "database_time"
        )
        if token == tokens[pk]
    ]
    if held:
        lease_until = held[0][1] + timedelta(seconds=lease_seconds)
        rows(TaskExecutionTry).filter(pk__in=[pk for pk, _ in held]).update(lease_until=lease_until)
    return _report(tokens, frozenset(pk for pk, _ in held))


def _report(tokens: Mapping[int, Any], renewed: frozenset[int]) -> Renewed:
    states = {
        pk: (token, cancel_requested_at)
        for pk, token, cancel_requested_at in rows(TaskExecutionTry)
        .filter(pk__in=tokens, lease_until__isnull=False)
        .values_list("pk", "claim_token", "task_execution__cancel_requested_at")
    }
    lost = frozenset(pk for pk, token in tokens.items() if pk not in states or states[pk][0] != token)
    cancelled = frozenset(pk for pk, (_, cancel) in states.items() if cancel is not None and pk not in lost)
    return Renewed(lost=lost, cancelled=cancelled, renewed=renewed)

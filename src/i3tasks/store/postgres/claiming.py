"""Claims, in one statement: the tries that may run now are leased and read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from ...conf import get_config
from ..database import Instant
from ..requests import Claimed, ClaimRequest
from ..suspects import SUSPECT_AFTER
from .priority import ANY_RANKED
from .statements import (
    EXECUTIONS,
    NOW,
    PAUSES,
    RESULTS,
    TRIES,
    Question,
    document,
    instant,
    integers,
    microseconds,
    moment,
    read,
    repeated,
    waiting,
)

# `held` locks all tries that are asked for, in their order, whether they may be had or not. The execution is read as it
# was when the statement began, and no lock is needed for that: a cancel request ends such a try under the try's lock.
_CLAIM = f"""\
WITH held AS MATERIALIZED (
    SELECT t.id, t.task_execution_id, t.try_number, t.asked_at, t.run_after, k.token, k.worker_id, k.seconds, k.queues,
        k.heeds_pauses, {NOW} AS at,
        k.kind IS NOT NULL AND t.task_execution_id = a.execution_id AND NOT t.is_completed AND t.claim_token IS NULL
            AND t.try_number <= {SUSPECT_AFTER} AND (t.run_after IS NULL OR t.run_after <= {NOW})
            AND NOT (k.is_ticket AND (SELECT {ANY_RANKED})) AS is_free
    FROM ROWS FROM (
        unnest(%(tries)s::bigint[]), unnest(%(executions)s::bigint[]), unnest(%(kinds)s::int[])
    ) AS a (id, execution_id, kind)
    LEFT JOIN jsonb_to_recordset(%(asked)s::jsonb)
        AS k (
            kind int, token uuid, worker_id text, seconds float8, queues jsonb, heeds_pauses bool, is_ticket bool
        ) ON k.kind = a.kind
    JOIN {TRIES} t ON t.id = a.id
    ORDER BY t.id FOR NO KEY UPDATE OF t SKIP LOCKED
)
UPDATE {TRIES} t SET claim_token = h.token, worker_id = h.worker_id, started_at = h.at, dispatch_at = NULL,
    lease_until = h.at + make_interval(secs => h.seconds), updated_at = h.at
FROM held h JOIN {EXECUTIONS} e ON e.id = h.task_execution_id
WHERE t.id = h.id AND h.is_free AND e.cancel_requested_at IS NULL
    AND (h.queues IS NULL OR h.queues @> coalesce(to_jsonb(e.queue_name), 'null'))
    AND NOT (h.heeds_pauses AND coalesce(nullif(e.queue_name, ''), %(default)s) = ANY (ARRAY(
        SELECT queue_name FROM {PAUSES}
    )))
    AND NOT EXISTS (SELECT FROM {RESULTS} r WHERE r.task_execution_try_id = h.id)
RETURNING t.id, e.id, e.uuid, h.try_number, e.task_path, e.task_name, e.task_args, e.task_kwargs, e.options,
    e.queue_name, {microseconds("h.asked_at")}, {microseconds("h.run_after")}, {microseconds("h.at")},
    e.trace_context
"""
_CLAIM_WAITING = waiting(_CLAIM)

Kind = tuple[UUID, str, float, "frozenset[str | None] | None", bool, bool]
"""The token that is written, the worker and its lease, the queues, and whether pauses and turns are heeded."""


def claim_plain(
    requests: Sequence[ClaimRequest], tokens: Sequence[UUID], now: Instant, *, wait: bool, heed_turns: bool
) -> Question[dict[int, Claimed]]:
    """Lease those of the tries that may run now, with these tokens. The answer has the leases by the ids of the tries.

    Tries that are refused, that may be suspects or that are asked for twice are left to the ORM. With `heed_turns`, so
    are tries that are asked for by tickets, if others may have their turn first: see `priority`.
    """
    tries = [request.try_id for request in requests]
    twice = repeated(tries)
    kinds: dict[Kind, int] = {}
    holders: dict[int, tuple[UUID, str]] = {}
    kind_of = []
    for request, token in zip(requests, tokens, strict=True):
        heeds = request.heeds_pauses, request.is_ticket and heed_turns
        kind = (token, request.worker_id, request.lease_seconds, request.queues, *heeds)
        is_plain = request.try_id not in twice and not request.taken
        kind_of.append(kinds.setdefault(kind, len(kinds)) if is_plain else -1)
        holders[request.try_id] = token, request.worker_id
    values = {
        "now": instant(now),
        "tries": integers(tries),
        "executions": integers([request.execution_id for request in requests]),
        "kinds": integers(kind_of),
        "default": get_config().settings.default_queue.queue_name,
        "asked": document([_record(kind, number) for kind, number in kinds.items()]),
    }
    return Question(
        _CLAIM_WAITING if wait else _CLAIM,
        values,
        lambda found: {row[0]: _claimed(row, *holders[row[0]]) for row in found},
    )


def _record(kind: Kind, number: int) -> dict[str, Any]:
    token, worker_id, seconds, queues, heeds_pauses, is_ticket = kind
    return {
        "kind": number,
        "token": token.hex,
        "worker_id": worker_id,
        "seconds": seconds,
        "queues": None if queues is None else [*queues],
        "heeds_pauses": heeds_pauses,
        "is_ticket": is_ticket,
    }


def _claimed(row: tuple[Any, ...], token: UUID, worker_id: str) -> Claimed:
    try_id, execution_id, uuid, number, module, function, args, kwargs, options, queue, asked, after, at, trace = row
    asked_at = moment(asked)
    # By position, which takes half the time.
    return Claimed(
        try_id,
        execution_id,
        uuid,
        token,
        number,
        module,
        function,
        read(args),
        read(kwargs),
        read(options) or {},
        queue,
        asked_at,
        asked_at if after is None else moment(after),
        moment(at),
        worker_id,
        read(trace),
    )

"""Heartbeats and confirmations, each in one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from ..database import Instant
from ..requests import TryRef
from .statements import EXECUTIONS, NOW, TRIES, Question, document, fetched, instant, integers, uuids, waiting

_RENEW = f"""\
WITH held AS MATERIALIZED (
    SELECT t.id, t.task_execution_id, t.claim_token = a.token AS is_ours
    FROM ROWS FROM (unnest(%(tries)s::bigint[]), unnest(%(tokens)s::uuid[])) AS a (id, token)
    JOIN {TRIES} t ON t.id = a.id
    WHERE t.lease_until IS NOT NULL
    ORDER BY t.id FOR NO KEY UPDATE OF t SKIP LOCKED
)
UPDATE {TRIES} t SET lease_until = {NOW} + make_interval(secs => %(seconds)s)
FROM held h JOIN {EXECUTIONS} e ON e.id = h.task_execution_id
WHERE t.id = h.id AND h.is_ours
RETURNING t.id, e.cancel_requested_at IS NOT NULL
"""
_RENEW_WAITING = waiting(_RENEW)

# The rows whose `dispatch_at` is another by now are not even locked: most have been claimed. They are looked up by
# their ids: an index of `dispatch_at`, which a plain `=` could use, has all tries of a `delay_many` at one instant.
_CONFIRM = f"""\
WITH held AS MATERIALIZED (
    SELECT t.id
    FROM ROWS FROM (unnest(%(tries)s::bigint[]), jsonb_array_elements_text(%(instants)s::jsonb)) AS a (id, dispatch_at)
    JOIN {TRIES} t ON t.id = a.id AND t.dispatch_at IS NOT DISTINCT FROM a.dispatch_at::timestamptz
    ORDER BY t.id FOR NO KEY UPDATE OF t SKIP LOCKED
)
UPDATE {TRIES} t SET publish_count = t.publish_count + 1,
    dispatch_at = {NOW} + make_interval(secs => least(%(first)s * 2 ^ least(t.publish_count, 20), %(longest)s))
FROM held h WHERE t.id = h.id
RETURNING t.id
"""
_CONFIRM_WAITING = waiting(_CONFIRM)


def renew_held(leases: Mapping[int, UUID], seconds: float, now: Instant, wait: bool) -> dict[int, bool]:
    """Move these leases on. Gives the ids of those that are ours and free, and whether a cancellation is requested."""
    statement = _RENEW_WAITING if wait else _RENEW
    tries, tokens = integers([*leases]), uuids(leases.values())
    return dict(fetched(statement, now=now, tries=tries, tokens=tokens, seconds=seconds)) if leases else {}


def confirm_unclaimed(
    refs: Sequence[TryRef], first: timedelta, longest: timedelta, now: Instant, wait: bool
) -> Question[dict[int, None]]:
    """Put off those of the tries that still have the `dispatch_at` they were published with: by `first`, the next time
    by twice that, and so on. The answer names all of them: there is nothing else to do for any."""
    values = {
        "now": instant(now),
        "tries": integers([ref.try_id for ref in refs]),
        "instants": document([ref.dispatch_at.isoformat() for ref in refs]),
        "first": first.total_seconds(),
        "longest": longest.total_seconds(),
    }
    return Question(_CONFIRM_WAITING if wait else _CONFIRM, values, lambda _: dict.fromkeys(ref.try_id for ref in refs))

"""Turns, each step in one statement for a batch of claims: the first tries, the requested ones, the displaced ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from ..database import Instant
from ..requests import TryRef
from .statements import EXECUTIONS, NOW, TRIES, fetched, integers
from .taking import REFERENCE, refs

_WAITS = "NOT w.is_completed AND w.started_at IS NULL"  # the condition of the index
_SINCE = "coalesce(w.run_after, w.asked_at)"


def _first(of_level: str) -> str:
    return f"""\
SELECT h.*, e.task_path, e.task_name FROM levels v CROSS JOIN LATERAL (
    SELECT w.id, w.task_execution_id, w.queue_name, w.priority, {_SINCE} AS since
    FROM {TRIES} w
    WHERE {_WAITS} AND w.queue_name = v.queue_name AND {of_level}
        AND {_SINCE} <= {NOW} + make_interval(secs => %(differ)s) AND (w.run_after IS NULL OR w.run_after <= {NOW})
        AND w.claim_token IS NULL AND w.dispatch_at IS NOT NULL AND w.publish_count > 0
    ORDER BY {_SINCE} LIMIT v.tickets FOR NO KEY UPDATE OF w SKIP LOCKED
) h JOIN {EXECUTIONS} e ON e.id = h.task_execution_id"""


ANY_RANKED = f"EXISTS (SELECT FROM {TRIES} w WHERE {_WAITS} AND w.priority <> 0)"
"""SQL: whether any try waits whose priority is not 0."""
# `levels` goes from each priority to the next lower one, a look into the index for each. So what is deferred, however
# much it is, is never read. The levels but 0 have an index of their own, the smallest whatever the statistics say.
_HIGHER = f"""\
WITH RECURSIVE named AS MATERIALIZED (
    SELECT w.* FROM unnest(%(tries)s::bigint[]) AS a (id) JOIN {TRIES} w ON w.id = a.id
), asked AS MATERIALIZED (
    SELECT w.queue_name, min(w.priority) AS lowest, count(*) AS tickets
    FROM named w
    WHERE {_WAITS} AND w.claim_token IS NULL AND w.dispatch_at IS NOT NULL AND w.queue_name IS NOT NULL
    GROUP BY w.queue_name
), levels AS (
    SELECT a.*, (
        SELECT max(w.priority) FROM {TRIES} w
        WHERE {_WAITS} AND w.queue_name = a.queue_name AND w.priority > a.lowest
    ) AS priority
    FROM asked a
    UNION ALL
    SELECT v.queue_name, v.lowest, v.tickets, (
        SELECT max(w.priority) FROM {TRIES} w
        WHERE {_WAITS} AND w.queue_name = v.queue_name AND w.priority > v.lowest AND w.priority < v.priority
    )
    FROM levels v WHERE v.priority IS NOT NULL
)
{_first("w.priority = v.priority AND w.priority <> 0")} WHERE v.priority <> 0
UNION ALL
{_first("w.priority = 0")} WHERE v.priority = 0
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL WHERE {ANY_RANKED}
"""
_WAITING = f"{_WAITS} AND w.claim_token IS NULL AND w.dispatch_at IS NOT NULL"
_HOLD = f"""\
SELECT w.id, w.task_execution_id, w.queue_name, w.priority, {_SINCE}
FROM {TRIES} w
WHERE w.id = ANY (%(tries)s::bigint[]) AND {_WAITING} AND w.queue_name IS NOT NULL
    AND (w.run_after IS NULL OR w.run_after <= {NOW})
ORDER BY w.id FOR NO KEY UPDATE OF w SKIP LOCKED
"""
_DISPLACE = f"""\
WITH held AS MATERIALIZED (
    SELECT w.id, w.task_execution_id FROM {TRIES} w
    WHERE w.id = ANY (%(tries)s::bigint[]) AND {_WAITING}
    ORDER BY w.id FOR NO KEY UPDATE OF w SKIP LOCKED
)
UPDATE {TRIES} t SET dispatch_at = {NOW} + make_interval(secs => %(grace)s), publish_count = 0, updated_at = {NOW}
FROM held h JOIN {EXECUTIONS} e ON e.id = h.task_execution_id
WHERE t.id = h.id
RETURNING {REFERENCE}
"""


def are_any_ranked() -> bool:
    """Whether any try waits whose priority is not 0."""
    [(answer,)] = fetched(f"SELECT {ANY_RANKED}")
    return bool(answer)


def find_higher(try_ids: Sequence[int], clocks_differ: timedelta, now: Instant) -> tuple[bool, list[tuple[Any, ...]]]:
    """Lock the first waiting tries of each priority that is higher than one of these tries has, on the same queue.

    Gives besides whether any try waits at all whose priority is not 0.
    """
    found = fetched(_HIGHER, now=now, tries=integers(try_ids), differ=clocks_differ.total_seconds())
    higher = [row for row in found if row[0] is not None]
    return len(higher) < len(found), higher


def hold(try_ids: Sequence[int], now: Instant) -> list[tuple[Any, ...]]:
    """Lock those of the tries that could be claimed now and whose queue the row names."""
    return fetched(_HOLD, now=now, tries=integers(try_ids))


def displace_held(try_ids: Sequence[int], grace: timedelta, now: Instant) -> dict[int, TryRef]:
    """Let those of the tries that wait be published anew, in `grace` if no one does before."""
    return refs(fetched(_DISPLACE, now=now, tries=integers(try_ids), grace=grace.total_seconds()))

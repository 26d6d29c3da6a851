"""The questions whether tries of a higher priority wait, and which, each in one statement for a batch of claims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..database import Instant
from .statements import NOW, TRIES, fetched, integers

_WAITS = "NOT w.is_completed AND w.started_at IS NULL"  # the condition of the index
_SINCE = "coalesce(w.run_after, w.asked_at)"


def _first(of_level: str) -> str:
    return f"""\
SELECT h.* FROM levels v CROSS JOIN LATERAL (
    SELECT w.id, w.task_execution_id, w.queue_name, w.priority, {_SINCE} AS since
    FROM {TRIES} w
    WHERE {_WAITS} AND w.queue_name = v.queue_name AND {of_level} AND {_SINCE} <= {NOW}
        AND w.claim_token IS NULL AND w.dispatch_at IS NOT NULL AND w.publish_count > 0
    ORDER BY {_SINCE} LIMIT v.tickets FOR NO KEY UPDATE OF w SKIP LOCKED
) h"""


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
"""
ANY_RANKED = f"EXISTS (SELECT FROM {TRIES} w WHERE {_WAITS} AND w.priority <> 0)"
"""SQL: whether any try waits whose priority is not 0."""


def are_any_ranked() -> bool:
    """Whether any try waits whose priority is not 0."""
    [(answer,)] = fetched(f"SELECT {ANY_RANKED}")
    return bool(answer)


def find_higher(try_ids: Sequence[int], now: Instant) -> list[tuple[Any, ...]]:
    """Lock the first waiting tries of each priority that is higher than one of these tries has, on the same queue."""
    return fetched(_HIGHER, now=now, tries=integers(try_ids))

"""Turns, each step in one statement for a batch of claims: the first tries, the requested ones, the displaced ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from ..database import Instant, in_index_order
from ..requests import TryRef
from .statements import EXECUTIONS, NOW, TRIES, fetched, integers
from .taking import REFERENCE, refs

_WAITS = "NOT w.is_completed AND w.started_at IS NULL"  # the condition of the indexes
# A join with the ids would read all of a table that had few rows when it was analyzed.
_NAMED = f"SELECT w.* FROM {TRIES} w WHERE w.id = ANY (%(tries)s::bigint[])"
# Whether they wait is asked outside of `named`: by an index with that condition PostgreSQL would read all that wait.
_HELD = f"named AS MATERIALIZED ({_NAMED} ORDER BY w.id FOR NO KEY UPDATE OF w SKIP LOCKED)"
_SINCE = "coalesce(w.run_after, w.asked_at)"
ANY_RANKED = f"""\
EXISTS (
    SELECT FROM {TRIES} w
    WHERE {_WAITS} AND w.priority <> 0
        AND (w.priority <> 0 OR (SELECT count(*) FROM generate_series(0, w.priority)) < 0)
)"""
"""SQL: whether any try waits whose priority is not 0.

The last condition adds nothing. The index of these tries implies it; with any other index it would be computed, at a
price for which PostgreSQL leaves them alone. By statistics from a time when nothing waited, it would read all of a new
backlog by the index of unfinished tries, which seems to cost less, to find that none of it has a priority.
"""


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


# `levels` goes from each priority to the next lower one, a look into the index for each. So what is deferred, however
# much it is, is never read. The levels but 0 have an index of their own, the smallest whatever the statistics say.
_HIGHER = f"""\
WITH RECURSIVE named AS MATERIALIZED ({_NAMED}), asked AS MATERIALIZED (
    SELECT w.queue_name, min(w.priority) AS lowest, count(*) AS tickets
    FROM named w
    WHERE {_WAITS} AND w.claim_token IS NULL AND w.dispatch_at IS NOT NULL AND w.queue_name IS NOT NULL
    GROUP BY w.queue_name
), levels AS (
    SELECT a.*, (
        SELECT w.priority FROM {TRIES} w
        WHERE {_WAITS} AND w.queue_name = a.queue_name AND w.priority > a.lowest
        ORDER BY w.priority DESC LIMIT 1
    ) AS priority
    FROM asked a
    UNION ALL
    SELECT v.queue_name, v.lowest, v.tickets, (
        SELECT w.priority FROM {TRIES} w
        WHERE {_WAITS} AND w.queue_name = v.queue_name AND w.priority > v.lowest AND w.priority < v.priority
        ORDER BY w.priority DESC LIMIT 1
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
WITH {_HELD}
SELECT w.id, w.task_execution_id, w.queue_name, w.priority, {_SINCE}
FROM named w
WHERE {_WAITING} AND w.queue_name IS NOT NULL AND (w.run_after IS NULL OR w.run_after <= {NOW})
"""
_DISPLACE = f"""\
WITH {_HELD}
UPDATE {TRIES} t SET dispatch_at = {NOW} + make_interval(secs => %(grace)s), publish_count = 0, updated_at = {NOW}
FROM named w JOIN {EXECUTIONS} e ON e.id = w.task_execution_id
WHERE t.id = w.id AND {_WAITING}
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
    with in_index_order():
        found = fetched(_HIGHER, now=now, tries=integers(try_ids), differ=clocks_differ.total_seconds())
    higher = [row for row in found if row[0] is not None]
    return len(higher) < len(found), higher


def hold(try_ids: Sequence[int], now: Instant) -> list[tuple[Any, ...]]:
    """Lock those of the tries that could be claimed now and whose queue the row names."""
    return fetched(_HOLD, now=now, tries=integers(try_ids))


def displace_held(try_ids: Sequence[int], grace: timedelta, now: Instant) -> dict[int, TryRef]:
    """Let those of the tries that wait be published anew, in `grace` if no one does before."""
    return refs(fetched(_DISPLACE, now=now, tries=integers(try_ids), grace=grace.total_seconds()))

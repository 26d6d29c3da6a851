"""Settlements of successes that nothing follows yet, in one statement."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.outcome import Success
from ...models import ExecutionOutcome, TaskGroup
from ..database import Instant
from ..requests import Settled, Settlement
from .statements import (
    EXECUTIONS,
    GROUPS,
    NOW,
    RESULTS,
    TRIES,
    Question,
    document,
    instant,
    integers,
    microseconds,
    moment,
    repeated,
    uuids,
    waiting,
)

_LEFT = "g.total_count - g.completed_count - g.failed_count - m.ended"
"""SQL: the members that a group still waits for."""
# `held` locks the tries of all settlements, `plain` their executions and `groups` those of the members, each in their
# order; what decides is read under the lock. An item without a token is locked only: the ORM's form settles it, as it
# does with members whose group they complete if anything follows it, or with a group that has failed or is to fail.
# Results are read by their place: PostgreSQL knows the length of an array, but expects 100 elements of any JSON, for
# which it would read a table of some thousand rows from end to end.
_SETTLE = f"""\
WITH held AS MATERIALIZED (
    SELECT t.id, t.task_execution_id, %(results)s::jsonb -> a.place AS result,
        %(texts_of)s::jsonb ->> a.place AS text_of,
        t.claim_token = a.token AND t.task_execution_id = a.execution_id AND NOT t.is_completed AS is_ours
    FROM ROWS FROM (
        unnest(%(tries)s::bigint[]), unnest(%(executions)s::bigint[]), unnest(%(tokens)s::uuid[]),
        unnest(%(places)s::int[])
    ) AS a (id, execution_id, token, place)
    JOIN {TRIES} t ON t.id = a.id
    ORDER BY t.id FOR NO KEY UPDATE OF t SKIP LOCKED
), plain AS MATERIALIZED (
    SELECT h.id, h.task_execution_id, h.result, h.text_of, e.task_group_id AS group_id,
        h.is_ours AND e.chain IS NULL AND e.cancel_requested_at IS NULL AS ends
    FROM held h JOIN {EXECUTIONS} e ON e.id = h.task_execution_id
    ORDER BY e.id FOR NO KEY UPDATE OF e SKIP LOCKED
), members AS (
    SELECT group_id, count(*)::int AS ended FROM plain
    WHERE ends AND group_id IS NOT NULL AND %(counts)s GROUP BY group_id
), groups AS MATERIALIZED (
    SELECT g.id, m.ended, g.status = '{TaskGroup.STATUS_PENDING}' AND CASE g.failed_count
            WHEN 0 THEN {_LEFT} > 0 OR ({_LEFT} = 0 AND g.callback_task_name = '')
            ELSE {_LEFT} > 0 AND g.wait_for_all
        END AS is_plain, g.failed_count = 0 AND {_LEFT} = 0 AS is_complete
    FROM members m JOIN {GROUPS} g ON g.id = m.group_id
    ORDER BY g.id FOR NO KEY UPDATE OF g SKIP LOCKED
), ended AS MATERIALIZED (
    SELECT id, task_execution_id, result, text_of, {NOW} AS at FROM plain
    WHERE ends AND (group_id IS NULL OR group_id IN (SELECT id FROM groups WHERE is_plain))
), counts AS (
    UPDATE {GROUPS} g SET completed_count = g.completed_count + n.ended, updated_at = {NOW},
        status = CASE WHEN n.is_complete THEN '{TaskGroup.STATUS_SUCCESS}' ELSE g.status END,
        finished_at = CASE WHEN n.is_complete THEN {NOW} ELSE g.finished_at END
    FROM groups n WHERE g.id = n.id AND n.is_plain
), tries AS (
    UPDATE {TRIES} t SET is_completed = true, is_success = true, finished_at = n.at, lease_until = NULL,
        dispatch_at = NULL, updated_at = n.at
    FROM ended n WHERE t.id = n.id
), executions AS (
    UPDATE {EXECUTIONS} e SET finished_at = n.at, outcome = '{ExecutionOutcome.SUCCESS}', updated_at = n.at
    FROM ended n WHERE e.id = n.task_execution_id
), results AS (
    INSERT INTO {RESULTS} (created_at, updated_at, task_execution_try_id, result, text_of)
    SELECT at, at, id, result, text_of FROM ended
    ON CONFLICT (task_execution_try_id) DO UPDATE
    SET result = excluded.result, text_of = excluded.text_of, updated_at = excluded.updated_at
)
SELECT id, {microseconds("at")} FROM ended
"""
_SETTLE_WAITING = waiting(_SETTLE)


def settle_plain(
    settlements: Sequence[Settlement], now: Instant, *, wait: bool = False, counts: bool = True
) -> Question[dict[int, Settled]] | None:
    """Write the successes without a chain and a cancel request. The answers are by the ids of the tries.

    Members are counted in their groups, except where a callback would be called. `counts`: off in a transaction that
    goes on, as it may have to lock older groups, too (see `locks`).

    Settlements without a lease, or that come twice, are left to the ORM; so are rows that another transaction has
    locked. None: there is no success among them.
    """
    outcomes = [item.outcome if isinstance(item.outcome, Success) else None for item in settlements]
    if not any(outcomes):
        return None
    tries = [item.try_id for item in settlements]
    twice = repeated(tries)
    tokens = [
        item.token if outcome is not None and item.try_id not in twice else None
        for item, outcome in zip(settlements, outcomes, strict=True)
    ]
    values = {
        "now": instant(now),
        "tries": integers(tries),
        "executions": integers([item.execution_id for item in settlements]),
        "tokens": uuids(tokens),
        "counts": counts,
        "places": integers(range(len(settlements))),
        "results": document([outcome and outcome.value for outcome in outcomes]),
        "texts_of": document([outcome and outcome.text_of for outcome in outcomes]),
    }
    return Question(
        _SETTLE_WAITING if wait else _SETTLE,
        values,
        lambda found: {try_id: Settled(at=moment(at)) for try_id, at in found},
    )

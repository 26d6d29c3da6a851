"""Makes finished executions by the million, in the database itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

BATCH = 200_000
FAILED_EVERY, CANCELLED_EVERY = 1000, 10_000
_TABLES = ("i3tasks_taskexecution", "i3tasks_taskexecutiontry", "i3tasks_taskexecutionresult")

_EXECUTIONS = """
INSERT INTO i3tasks_taskexecution (created_at, updated_at, uuid, task_name, task_path, task_args, task_kwargs,
                                   queue_name, outcome, finished_at)
SELECT at, at, gen_random_uuid(), 'noop_async', 'tests.benchmarks.contestants.tasks.i3tasks', '[1]', '{{}}', 'queue',
       CASE WHEN number % {cancelled} = 1 THEN 'cancelled' WHEN number % {failed} = 0 THEN 'failed' ELSE 'success' END,
       at
FROM generate_series({first}, {last}) AS number,
     LATERAL (SELECT now() - ({count} - number) * interval '10 ms' AS at) AS times
RETURNING id, created_at, outcome
"""
_TRIES = """
WITH execution AS ({executions}),
     try AS (
         INSERT INTO i3tasks_taskexecutiontry (created_at, updated_at, task_execution_id, try_number, asked_at,
                                               started_at, finished_at, is_completed, is_success, publish_count,
                                               error_class)
         SELECT at, at, id, 1, at, at, at, true, outcome = 'success', 1,
                CASE outcome WHEN 'failed' THEN 'ValueError'
                             WHEN 'cancelled' THEN 'i3tasks.exceptions.TaskCancelled' END
         FROM (SELECT id, created_at AS at, outcome FROM execution) AS e
         RETURNING id, is_success
     )
INSERT INTO i3tasks_taskexecutionresult (created_at, updated_at, task_execution_try_id, result)
SELECT now(), now(), id, '1' FROM try WHERE is_success
"""


def fill(sql: Callable[[str], Any], count: int) -> None:
    """Insert so many finished executions with a try each, the oldest first, one each 10 ms.

    One of a thousand has failed, one of ten thousand was cancelled; the others have a result.
    """
    for first in range(1, count + 1, BATCH):
        last = min(first + BATCH - 1, count)
        every = {"failed": FAILED_EVERY, "cancelled": CANCELLED_EVERY}
        sql(_TRIES.format(executions=_EXECUTIONS.format(first=first, last=last, count=count, **every)))
    sql(f"VACUUM ANALYZE {', '.join(_TABLES)}")


def leave_statistics(sql: Callable[[str], Any]) -> None:
    """From now on PostgreSQL does not analyze the tables by itself."""
    for table in _TABLES:
        sql(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")


def analyze(sql: Callable[[str], Any]) -> None:
    """Make new statistics of the tables."""
    sql(f"ANALYZE {', '.join(_TABLES)}")

"""Every page of the board amid many rows: each of its statements goes by an index, and none takes long.

With few rows, reading all of a table is the quickest, so PostgreSQL is asked for a plan that does not. At 10 million it
decides by itself: I3TASKS_BOARD_ROWS=10000000 python -m pytest tests/board/test_scale.py --db postgres -s --timeout 0
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from i3tasks.models import TaskExecution, TaskGroup
from i3tasks.store.states import State
from tests.benchmarks.scale.rows import fill

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

ROWS = int(os.environ.get("I3TASKS_BOARD_ROWS", "5000"))
GROUPS = max(ROWS // 20, 1000)
MEMBERS = max(ROWS // 10, 1000)
"""Of the largest group."""
LARGE = ("taskexecution", "taskexecutiontry", "taskexecutionresult", "taskgroup", "scheduletick")
ALL_OF_A_TABLE = re.compile(rf"Seq Scan on i3tasks_(?:{'|'.join(LARGE)})\b")
BY_ID = re.compile(rf" using \S+_pkey on i3tasks_(?:{'|'.join(LARGE)})\b.*\n(?P<next>.*)")
"""An index of ids is the table in another order: without a condition, it serves those who take what comes first."""
OF_MOST = ("(status)::text = 'success'", "(task_name)::text = 'noop_async'")
"""Of what most rows are, the newest are among the newest of all: an index of its own saves nothing."""
BOARD = "/i3/board/"
TIMES = 3 if ROWS >= 1_000_000 else 1
"""Requests of each page, the quickest of which counts: other work of the machine only adds to a time."""
MOST_MS = 50

UNFINISHED = """
WITH execution AS (
    INSERT INTO i3tasks_taskexecution (created_at, updated_at, uuid, task_name, task_path, task_args, task_kwargs)
    SELECT now(), now(), gen_random_uuid(), 'unfinished', 'shop.tasks', '[1]', '{{}}' FROM generate_series(1, {count})
    RETURNING id
)
INSERT INTO i3tasks_taskexecutiontry (created_at, updated_at, task_execution_id, try_number, asked_at, is_completed,
                                      is_success, publish_count, {columns})
SELECT now(), now(), id, 1, now() - interval '1 s', false, false, 1, {values} FROM execution
"""
STATES = {
    "waiting": ("dispatch_at", "now() + interval '1 h'"),
    "deferred": ("run_after, dispatch_at", "now() + interval '1 d', now() + interval '1 d'"),
    "running": (
        "started_at, lease_until, claim_token, worker_id",
        "now(), now() + interval '1 h', gen_random_uuid(), 'w' || id % 10",
    ),
    "lost": (
        "started_at, lease_until, claim_token, worker_id",
        "now(), now() - interval '1 h', gen_random_uuid(), 'gone'",
    ),
}
RETRYING = """
INSERT INTO i3tasks_taskexecutiontry (created_at, updated_at, task_execution_id, try_number, asked_at, is_completed,
                                      is_success, publish_count, run_after, dispatch_at)
SELECT now(), now(), id, 2, now(), false, false, 0, now() + interval '1 h', now() + interval '1 h'
FROM (UPDATE_FAILED) AS failed
"""
GROUPED = """
WITH made AS (
    INSERT INTO i3tasks_taskgroup (created_at, updated_at, callback_task_name, callback_task_path, callback_task_args,
                                   callback_task_kwargs, total_count, completed_count, failed_count, status)
    SELECT now(), now(), 'publish', 'shop.tasks', '[]', '{{}}', 2, 2, 0,
           CASE number % 1000 WHEN 1 THEN 'failed' WHEN 2 THEN 'pending' ELSE 'success' END
    FROM generate_series(1, {groups}) AS number
    RETURNING id
)
SELECT max(id) FROM made
"""
OF_THE_LARGEST = """
WITH member AS (
    INSERT INTO i3tasks_taskexecution (created_at, updated_at, uuid, task_name, task_path, task_args, task_kwargs,
                                       task_group_id, group_index, outcome, finished_at)
    SELECT now() - interval '1 h', now(), gen_random_uuid(), 'resize', 'shop.tasks', '[1]', '{{}}', {group}, number,
           CASE number % 1000 WHEN 0 THEN 'failed' ELSE 'success' END, now() - interval '1 h'
    FROM generate_series(1, {members}) AS number
    RETURNING id, outcome
)
INSERT INTO i3tasks_taskexecutiontry (created_at, updated_at, task_execution_id, try_number, asked_at, started_at,
                                      finished_at, is_completed, is_success, publish_count, error_class)
SELECT now(), now(), id, 1, now() - interval '1 h', now() - interval '1 h', now() - interval '1 h', true,
       outcome = 'success', 1, CASE outcome WHEN 'failed' THEN 'shop.CardDeclined' END FROM member
"""
TICKED = """
INSERT INTO i3tasks_scheduletick (schedule_key, slot, created_at, execution_id)
SELECT 'night ' || number % 20, now() - number * interval '1 min', now(), {first} + number
FROM generate_series(1, {count}) AS number;
INSERT INTO i3tasks_taskschedule (created_at, updated_at, name, task_name, task_path, cron, args, kwargs)
SELECT now(), now(), 'night ' || number, 'night', 'shop.tasks', '* * * * *', '[]', '{{}}'
FROM generate_series(0, 19) AS number;
INSERT INTO i3tasks_worker (id, role, state, host, pid, version, queues, started_at, heartbeat_at, concurrency, running)
SELECT 'w' || number, 'worker', 'running', 'pod', number, '1', '["default"]', now(), now(), 100, 10
FROM generate_series(0, 199) AS number;
INSERT INTO i3tasks_deploy (release, first_seen) SELECT 'v' || number, now() - (99 - number) * interval '1 h'
FROM generate_series(0, 99) AS number;
INSERT INTO i3tasks_boardact (created_at, updated_at, act, filter, by, expected, done, skipped, place, finished_at)
SELECT now(), now(), 'retry', '{{}}', 'ann', 1, 1, '{{}}', '', now() FROM generate_series(1, 2000)
"""


@pytest.fixture
def largest_group() -> int:
    """Fills the tables. Gives the id of the group with the most members."""

    def sql(statement: str) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None

    fill(sql, ROWS)
    for columns, values in STATES.values():
        sql(UNFINISHED.format(count=200, columns=columns, values=values))
    sql("UPDATE i3tasks_taskexecution SET outcome = NULL, finished_at = NULL WHERE id IN (SELECT id FROM "
        "i3tasks_taskexecution WHERE outcome = 'failed' ORDER BY id LIMIT 10)")  # fmt: skip
    failed = "SELECT id FROM i3tasks_taskexecution WHERE task_name = 'noop_async' AND outcome IS NULL"
    sql(RETRYING.replace("UPDATE_FAILED", failed))
    group = int(sql(GROUPED.format(groups=GROUPS)))
    sql(OF_THE_LARGEST.format(group=group, members=MEMBERS))
    sql(f"UPDATE i3tasks_taskgroup SET total_count = {MEMBERS}, failed_count = {MEMBERS // 1000} WHERE id = {group}")
    first = TaskExecution.objects.order_by("pk").values_list("pk", flat=True)[0]
    sql(TICKED.format(count=ROWS // 2, first=first - 1))
    sql("VACUUM ANALYZE")
    return group


def addresses(group: int) -> Iterator[str]:
    """All pages, in all the ways in which they are asked."""
    yield from ("", "queues/", "tasks/", "workers/", "schedules/", "acts/")
    yield from ("groups/", *(f"groups/?status={status}" for status in ("pending", "success", "failed")))
    yield f"groups/?status=failed&before={group - GROUPS // 2}"
    yield f"groups/{group}/"
    yield "executions/"
    for state in State:
        yield f"executions/?state={state.value}"
    filters = (
        *("task=noop_async", "task=resize&state=failed", "task=shop.tasks.unfinished&state=waiting"),
        *("queue=queue", "queue=no-such", "error=CardDeclined", "error=NoSuch", "error=ValueError&state=retrying"),
        *(
            "argument=nothing+has+this",
            "asked=1h",
            "asked=..1h&state=running",
            "finished=1h",
            "finished=1h&state=failed",
        ),
        *("id=1,2,3", "min_tries=2", "task=nothing_has_this_name"),
    )
    yield from (f"executions/?{one}" for one in filters)
    yield from ("act/?act=retry&state=failed", "act/?act=cancel&state=waiting,deferred", "act/?act=discard&task=resize")
    for kept in ({"task_name": "unfinished"}, {"outcome": "failed"}, {"task_group": group}):
        yield f"executions/{TaskExecution.objects.filter(**kept).latest('pk').pk}/"


def plan_of(statement: str, how: str = "") -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {how} {statement}")
        return "\n".join(line[:300] for (line,) in cursor.fetchall())


def reads_all(plan: str) -> bool:
    by_id = (found["next"].strip() for found in BY_ID.finditer(plan))
    filters = [line for line in by_id if line.startswith("Filter:") and not any(of in line for of in OF_MOST)]
    return bool(filters) or bool(ALL_OF_A_TABLE.search(plan))


def shape_of(statement: str) -> str:
    """Without its numbers."""
    return re.sub(r"\b\d+\b(, \d+\b)*", "…", statement)[:1500]


def asked(client: Client, address: str) -> tuple[float, CaptureQueriesContext]:
    """The seconds of one request, and its statements."""
    with CaptureQueriesContext(connection) as captured:
        began = time.perf_counter()
        response = client.get(BOARD + address)
        seconds = time.perf_counter() - began
    assert response.status_code == 200, address
    return seconds, captured


def test_every_page_goes_by_indexes(admin_client: Client, largest_group: int) -> None:
    assert TaskGroup.objects.count() == GROUPS
    read: dict[str, tuple[str, str]] = {}
    slow: dict[str, str] = {}
    for address in addresses(largest_group):
        admin_client.get(BOARD + address)  # what is read once in a process is not the page's
        seconds, captured = min((asked(admin_client, address) for _ in range(TIMES)), key=lambda one: one[0])
        slowest = max(captured.captured_queries, key=lambda query: float(query["time"]))
        longest = float(slowest["time"]) * 1000
        print(f"| `{address}` | {len(captured)} | {longest:.0f} | {seconds * 1000:.0f} |")
        if longest > MOST_MS:
            slow[shape_of(slowest["sql"])] = plan_of(slowest["sql"], "(ANALYZE, BUFFERS)")
        for query in captured.captured_queries:
            if query["sql"].startswith("SELECT"):
                read.setdefault(shape_of(query["sql"]), (address, query["sql"]))
    print("\n\n".join(f"{shape}\n{plan}" for shape, plan in slow.items()))
    assert len(read) > 100
    with connection.cursor() as cursor:
        cursor.execute(f"SET enable_seqscan = {'on' if ROWS >= 1_000_000 else 'off'}")
    plans = [f"{address}\n{shape}\n{plan_of(statement)}" for shape, (address, statement) in read.items()]
    scanned = [plan for plan in plans if reads_all(plan)]
    assert not scanned, "\n\n".join(scanned)

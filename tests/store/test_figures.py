"""The figures of the rows: what they count, and that no number of rows makes them dear."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from i3tasks.models import TaskExecution, TaskExecutionTry, Worker
from i3tasks.store import figures as figures_module
from i3tasks.store.figures import figures
from tests.store.helpers import plans
from tests.support.history import a_try, ago

pytestmark = pytest.mark.django_db


def of_queue(row: TaskExecutionTry, queue: str) -> TaskExecutionTry:
    TaskExecution.objects.filter(pk=row.pk and row.task_execution_id).update(queue_name=queue)
    return row


def a_worker(name: str, **columns: Any) -> None:
    defaults = {"role": "worker", "state": "running", "host": "h", "pid": 1, "version": "1", "queues": ["default"]}
    times = {"started_at": ago(hours=1), "heartbeat_at": ago()}
    Worker.objects.create(pk=name, **{**defaults, **times, **columns})


def test_an_empty_system_is_all_zeros() -> None:
    found = figures(timezone.now())

    assert set(found.tries.values()) == {0}
    assert {state for _, state in found.tries} == {"waiting", "running", "deferred"}
    assert found.oldest_waiting["default"] == 0
    assert (found.is_cut, found.unpublished, found.oldest_unpublished, found.slots, found.busy) == (False, 0, 0, 0, 0)
    assert (found.workers, found.queue_workers["default"]) == ({}, 0)
    assert (found.dispatched_at, found.beat_at) == (None, None)


def test_it_counts_by_queue_and_state_and_says_since_when_the_first_waits() -> None:
    now = timezone.now()
    a_try("pending", now - timedelta(seconds=90), dispatch_at=now + timedelta(hours=1), publish_count=1)
    a_try("pending", now - timedelta(seconds=30), dispatch_at=now)
    of_queue(a_try("pending", now - timedelta(hours=2), run_after=now - timedelta(seconds=5), dispatch_at=now), "mail")
    of_queue(a_try("pending", now, run_after=now + timedelta(hours=2), dispatch_at=now + timedelta(hours=2)), "mail")
    a_try("running", now, lease_until=now + timedelta(seconds=30))
    a_try("success", now, result=1)
    a_try("old failed", now)
    a_try("pending", now - timedelta(days=40), claim_token=None)

    found = figures(now)

    assert {key: count for key, count in found.tries.items() if count} == {
        ("default", "waiting"): 2,
        ("mail", "waiting"): 1,
        ("mail", "deferred"): 1,
        ("default", "running"): 1,
    }
    assert {queue: age for queue, age in found.oldest_waiting.items() if age} == {"default": 90, "mail": 5}


def test_a_try_that_names_its_queue_needs_no_look_at_its_execution() -> None:
    now = timezone.now()
    before = a_try("pending", now - timedelta(seconds=90), dispatch_at=now)
    TaskExecutionTry.objects.filter(pk=of_queue(before, "mail").pk).update(queue_name="mail")
    with CaptureQueriesContext(connection) as asked:
        found = figures(now)

    assert (found.tries["mail", "waiting"], found.oldest_waiting["mail"]) == (1, 90)
    reads = [query["sql"] for query in asked.captured_queries if "FROM" in query["sql"]]
    assert 1 < len(reads) <= 9
    assert not [sql for sql in reads if 'FROM "i3tasks_taskexecution" ' in sql]


def test_the_outbox_is_what_is_due_and_was_never_published() -> None:
    now = timezone.now()
    for seconds, count in ((40, 0), (10, 0), (50, 1), (-30, 0)):
        a_try("pending", now, dispatch_at=now - timedelta(seconds=seconds), publish_count=count)

    found = figures(now)

    assert (found.unpublished, found.oldest_unpublished) == (2, 40)


def test_workers_are_those_that_live() -> None:
    now = timezone.now()
    a_worker("w1", concurrency=10, running=4, queues=["default", "mail"], dispatched_at=now - timedelta(seconds=9))
    a_worker("w2", concurrency=10, running=1, state="draining", dispatched_at=now - timedelta(seconds=3))
    a_worker("web", concurrency=5, role="web", queues=["push"], beat_at=now - timedelta(seconds=7))
    a_worker("killed", heartbeat_at=now - timedelta(minutes=3))
    a_worker("ended", state="stopped")

    found = figures(now)

    assert found.workers == {("worker", "running"): 1, ("worker", "draining"): 1, ("web", "running"): 1}
    assert {queue: count for queue, count in found.queue_workers.items() if count} == {
        "default": 1,
        "mail": 1,
        "push": 1,
    }
    assert (found.slots, found.busy) == (15, 5)
    assert (found.dispatched_at, found.beat_at) == (now - timedelta(seconds=3), now - timedelta(seconds=7))


def test_a_long_backlog_is_counted_as_far_as_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures_module, "MOST_COUNTED", 3)
    for seconds in range(10, 60, 10):
        a_try("pending", ago(seconds=seconds), dispatch_at=ago(), publish_count=0)

    found = figures(timezone.now())

    assert (found.tries["default", "waiting"], found.unpublished, found.is_cut) == (4, 4, True)
    assert 50 <= found.oldest_waiting["default"] < 60, "the oldest is among those that are counted"


@pytest.mark.postgres
def test_the_indexes_serve() -> None:
    """No statement reads all tries or all executions there are."""

    def read() -> None:
        a_try("pending", ago(seconds=90), dispatch_at=ago())
        figures(timezone.now())

    found = [plan for plan in plans(read, deferred=50) if not plan.startswith("Insert")]
    of_tries = [plan for plan in found if "i3tasks_taskexecutiontry" in plan]
    assert len(of_tries) >= 4
    assert not [plan for plan in of_tries if "Seq Scan on i3tasks_taskexecution" in plan]

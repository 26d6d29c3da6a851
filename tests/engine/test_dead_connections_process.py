"""A database that ends all connections of a worker which keeps them for ever: no task may notice."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from i3tasks.models import TaskExecution, TaskExecutionTry
from tests.shop.isolated import where
from tests.shop.tasks import aplace_order, place_order
from tests.support.children import Children
from tests.support.databases import end_other_connections
from tests.support.rigs import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgres]


def test_no_task_fails_for_a_connection_that_the_server_has_closed(children: Children) -> None:
    children.changes["conn_max_age"] = None
    worker = children.worker("--concurrency", "4", "--threads", "2", lease_seconds=60)
    calls: list[tuple[Any, ...]] = [(place_order, "1"), (aplace_order, "2"), (where,)]
    names = (f"order {number}" for number in count())
    for _ in range(3):
        handles = [task.delay(next(names), *rest) for task, *rest in calls for _ in range(3)]
        ids = [handle.task_execution_id for handle in handles]
        ended = TaskExecution.objects.filter(pk__in=ids, outcome__isnull=False)
        until(lambda ids=ids, ended=ended: ended.count() == len(ids), 60, lambda: worker.output)
        tries = TaskExecutionTry.objects.filter(task_execution__in=ids)
        assert {item.error_traceback for item in tries if not item.is_success} == set(), worker.output
        assert tries.count() == len(ids), "none was tried again"
        end_other_connections()
    assert worker.stop() == 0

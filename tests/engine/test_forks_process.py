"""Bodies that fork under a worker: children end where their code ends, use rows, enqueue, and can be ended."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from i3tasks.models import TaskExecution, TaskExecutionTry
from tests.shop.forking import CODES, in_lane, in_loop, in_process, in_thread
from tests.support.children import Child, Children
from tests.support.rigs import until

pytestmark = pytest.mark.django_db(transaction=True)


def results(worker: Child, handles: dict[str, Any]) -> dict[str, Any]:
    """What each call returned, or the error of its try."""
    ids = [handle.task_execution_id for handle in handles.values()]
    ended = TaskExecution.objects.filter(pk__in=ids, outcome__isnull=False)
    until(lambda: ended.count() == len(ids), 90, lambda: worker.output)
    tries = {item.task_execution_id: item for item in TaskExecutionTry.objects.select_related("result")}
    found = {name: tries[handle.task_execution_id] for name, handle in handles.items()}
    return {name: item.result.result if item.is_success else item.error_class for name, item in found.items()}


def test_children_of_bodies(children: Children) -> None:
    ways = {**CODES, "pool": [True, True]}
    wanted: dict[str, Any] = {f"{name} {way}": ways[way] for name in ("thread", "process", "lane") for way in ways}
    wanted |= {f"loop {way}": CODES[way] for way in ("exit", "sys.exit", "raise", "return")} | {"loop await": 1}
    # SQLite's locks are not made for a fork beside a thread that holds them: see docs/workers.md.
    concurrency = "1" if connection.vendor == "sqlite" else "4"
    worker = children.worker("--concurrency", concurrency, "--threads", "2", lease_seconds=60)
    tasks = {"thread": in_thread, "process": in_process, "lane": in_lane, "loop": in_loop}
    handles = {name: tasks[name.split()[0]].delay(name.split()[1]) for name in wanted}
    assert results(worker, handles) == wanted, worker.output
    of_children = TaskExecution.objects.filter(task_name="pushed")
    assert of_children.count() == 3
    until(lambda: not TaskExecutionTry.objects.filter(task_execution__in=of_children, publish_count=0), 30)
    assert worker.stop() == 0
    assert "fork_posix" not in worker.output, "gRPC has no part in it"

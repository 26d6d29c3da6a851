"""A database that ends all connections of a web process between two pushes: no task and no beat may notice."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import httpx
import pytest

from i3tasks.models import TaskExecutionTry
from i3tasks.types import PushQueue
from tests.http.test_push_process import QUICK, body_of
from tests.shop.isolated import where
from tests.shop.tasks import aplace_order, place_order
from tests.support.children import Children, free_port, listens
from tests.support.databases import end_other_connections
from tests.support.rigs import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgres]


@pytest.mark.parametrize("application", ["application", "with_push_in_front"])
@pytest.mark.parametrize("conn_max_age", [None, 60])
def test_no_push_fails_for_a_connection_that_the_server_has_closed(
    application: str, conn_max_age: int | None, on_embedded: str, settings: Any
) -> None:
    by_hand = PushQueue("byhand", "web", "http://127.0.0.1:1/i3/tasks-push/")
    settings.I3TASKS = replace(settings.I3TASKS, other_queues=(by_hand,), **QUICK)
    children = Children(settings.PUBSUB_CONFIG, **{**QUICK, "lease_seconds": 60})
    children.changes["conn_max_age"] = conn_max_age
    port = free_port()
    url = f"http://127.0.0.1:{port}/i3"
    names = (f"order {number}" for number in count())
    with children.all_ended(), httpx.Client(timeout=60) as client:
        site = children.start("-m", "uvicorn", f"tests.asgi:{application}", "--port", str(port))
        until(lambda: listens(port) or site.process.poll() is not None, what=lambda: site.output)
        for _ in range(3):
            calls: list[tuple[Any, ...]] = [(place_order, "1"), (aplace_order, "2"), (where,)]
            for task, *rest in calls * 2:
                task_try = task.using(queue_name="byhand").delay(next(names), *rest).task_execution_try
                answer = client.post(f"{url}/tasks-push/", content=body_of(task_try))
                assert answer.status_code == 200, site.output
                ended = TaskExecutionTry.objects.get(pk=task_try.pk)
                assert ended.is_success, (ended.error_traceback, site.output)
            assert client.post(f"{url}/tasks-beat/").json() == {"status": "ok"}, site.output
            end_other_connections()
        assert "dispatch_failed" not in site.output
        assert "beat_failed" not in site.output

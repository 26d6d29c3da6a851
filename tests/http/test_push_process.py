"""Push in real processes: uvicorn, the emulator that pushes to it, clients that hang up, commits and passes."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connection
from django.db.models import QuerySet

from i3tasks.core.envelope import Envelope
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.types import PushQueue
from tests.shop.forking import CODES, in_lane, in_loop, in_thread
from tests.shop.gated import Gate, ahold, hold
from tests.shop.tasks import add, fail, pushed
from tests.support.children import Child, Children, free_port, listens
from tests.support.rigs import until

pytestmark = pytest.mark.django_db(transaction=True)

QUICK = {"lease_seconds": 1.5, "heartbeat_seconds": 0.4, "task_retry_backoff_base_seconds": 0.1}


class Site:
    """A web process, and where it listens."""

    def __init__(self, port: int, child: Child) -> None:
        self.port = port
        self.child = child
        self.url = f"http://127.0.0.1:{port}/i3/tasks-push/"
        self.beat_url = f"http://127.0.0.1:{port}/i3/tasks-beat/"


@pytest.fixture
def site(on_embedded: str, settings: Any) -> Iterator[Site]:
    """uvicorn with two databases that both have ATOMIC_REQUESTS, on a push queue of the embedded emulator."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}/i3/tasks-push/"
    queues = (PushQueue("byhand", "web", "http://127.0.0.1:1/i3/tasks-push/"), PushQueue("push", "push", endpoint))
    settings.I3TASKS = replace(settings.I3TASKS, other_queues=queues, **QUICK)
    children = Children(settings.PUBSUB_CONFIG, **QUICK)
    children.changes["push_endpoint"] = endpoint
    with children.all_ended():
        child = children.start(
            *("-m", "uvicorn", "tests.asgi:application", "--port", str(port), "--log-level", "warning")
        )
        until(lambda: listens(port) or child.process.poll() is not None, what=lambda: child.output)
        yield Site(port, child)


def body_of(task_try: Any) -> bytes:
    envelope = Envelope(task_try.task_execution_id, task_try.pk, "tests.shop.tasks", "add").to_bytes()
    return json.dumps({"message": {"data": base64.b64encode(envelope).decode(), "messageId": "1"}}).encode()


def finished(count: int = 1) -> bool:
    return TaskExecution.objects.filter(outcome__isnull=False).count() == count


@pytest.mark.usefixtures("site")
def test_the_emulator_pushes_and_the_site_runs() -> None:
    handles = [pushed.delay(f"v{number}") for number in range(5)]
    until(lambda: finished(5))
    results = {item.task_execution_id: item.result.result for item in TaskExecutionTry.objects.select_related("result")}
    assert results == {handle.task_execution_id: f"v{number}" for number, handle in enumerate(handles)}


def test_200_is_said_after_the_commit(site: Site) -> None:
    with httpx.Client() as client:
        for number in range(10):
            task_try = add.using(queue_name="byhand").delay(number, 1).task_execution_try
            response = client.post(site.url, content=body_of(task_try))
            assert response.json()["result"]["result"] == number + 1
            assert TaskExecutionTry.objects.get(pk=task_try.pk).is_success, "seen by another connection"


@pytest.mark.parametrize("task", [hold, ahold], ids=["sync", "coroutine"])
def test_a_client_that_hangs_up_cancels_nothing(site: Site, tmp_path: Path, task: Any) -> None:
    gate = Gate(tmp_path, "a")
    body = body_of(task.using(queue_name="byhand").delay(*gate.arguments).task_execution_try)
    with socket.create_connection(("127.0.0.1", site.port)) as client:
        head = f"POST /i3/tasks-push/ HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        until(lambda: gate.pids, what=lambda: site.child.output)
    held_for_longer_than_its_lease(gate)
    gate.open()
    until(finished, what=lambda: site.child.output)
    ended = TaskExecutionTry.objects.get()
    assert (ended.is_success, ended.try_number, len(gate.pids)) == (True, 1, 1)


def held_for_longer_than_its_lease(gate: Gate) -> None:
    """Until its lease was renewed: the request is gone, and the heartbeat goes on."""
    first = TaskExecutionTry.objects.get().lease_until
    until(lambda: TaskExecutionTry.objects.get().lease_until > first)


def test_a_deferred_retry_is_published_by_a_later_push_or_beat(site: Site) -> None:
    failing = fail.using(queue_name="push", max_retries=1).delay().task_execution_try
    until(lambda: TaskExecutionTry.objects.filter(task_execution=failing.task_execution_id, try_number=2).exists())

    def beaten() -> bool:
        assert httpx.post(site.beat_url).json() == {"status": "ok"}
        return finished()

    until(beaten, what=lambda: site.child.output)
    assert TaskExecution.objects.get().outcome == "failed"
    assert TaskExecutionTry.objects.filter(is_completed=True).count() == 2


def test_children_of_pushed_bodies_end_where_their_code_ends(site: Site) -> None:
    """The web server's signal handlers, loop and connections are not theirs."""
    wanted: dict[tuple[Any, str], Any] = {(in_thread, way): CODES[way] for way in ("sys.exit", "return", "enqueue")}
    wanted |= {(task, way): CODES[way] for task in (in_thread, in_lane) for way in ("use", "terminate")}
    wanted |= {(in_thread, "pool"): [True, True], (in_loop, "exit"): 7, (in_loop, "await"): 1}
    handles: dict[int, tuple[Any, str]] = {}

    def ended() -> QuerySet[TaskExecutionTry]:
        return TaskExecutionTry.objects.filter(is_completed=True, task_execution__in=handles)

    def all_ended() -> bool:
        return ended().count() == len(handles)

    for task, way in wanted:
        handles[task.using(queue_name="push").delay(way).task_execution_id] = (task, way)
        if connection.vendor == "sqlite":  # its locks are not made for a fork beside others: see docs/workers.md
            until(all_ended, 90, lambda: site.child.output)
    until(all_ended, 90, lambda: site.child.output)
    results = {handles[item.task_execution_id]: item.result.result for item in ended().select_related("result")}
    assert results == wanted, site.child.output
    until(lambda: TaskExecution.objects.filter(task_name="pushed", outcome="success").exists(), 30)
    assert httpx.post(site.beat_url).json() == {"status": "ok"}, "the site is well"
    assert site.child.stop() in {0, -15}, site.child.output


def test_malformed_bodies_are_4xx_on_the_wire(site: Site) -> None:
    for content in (b"", b"{", b"[]", b"\xff", b'{"message": {"data": "e30="}}', b"x" * 3_000_000):
        response = httpx.post(site.url, content=content)
        assert 400 <= response.status_code < 500
        assert response.json()["status"] == "bad"
    assert "Traceback" not in site.child.output

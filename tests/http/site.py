"""A web process that the embedded emulator pushes to with signed requests."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from i3tasks.core.envelope import Envelope
from i3tasks.types import PushQueue
from tests.support.children import Child, Children, free_port, listens
from tests.support.oidc import PUSHER
from tests.support.rigs import until


@contextmanager
def site(settings: Any, **changes: Any) -> Iterator[tuple[str, Child]]:
    """The URL of tasks-push/ in a web process, to which the embedded emulator pushes with PUSHER's token."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}/i3/tasks-push/"
    by_hand = PushQueue("byhand", "web", "http://127.0.0.1:1/i3/tasks-push/", audience=endpoint)
    queues = (by_hand, PushQueue("push", "push", endpoint))
    settings.I3TASKS = replace(settings.I3TASKS, other_queues=queues, service_account=PUSHER)
    children = Children(settings.PUBSUB_CONFIG, **{"service_account": PUSHER, **changes})
    children.changes["push_endpoint"] = endpoint
    with children.all_ended():
        child = children.start(
            *("-m", "uvicorn", "tests.asgi:application", "--port", str(port), "--log-level", "warning"),
            *("--timeout-keep-alive", "60"),  # as long as a slow machine lets a client's connection rest
        )
        until(lambda: listens(port) or child.process.poll() is not None, what=lambda: child.output)
        yield endpoint, child


def body_of(task: Any, *args: Any) -> bytes:
    task_try = task.using(queue_name="byhand").delay(*args).task_execution_try
    envelope = Envelope(task_try.task_execution_id, task_try.pk, "tests.shop.tasks", "add").to_bytes()
    return json.dumps({"message": {"data": base64.b64encode(envelope).decode(), "messageId": "1"}}).encode()

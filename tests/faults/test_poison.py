"""What nothing good can come of ends in one clear record or dead letter, and its neighbours don't notice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from i3tasks.broker.publisher import Outgoing, get_publisher
from i3tasks.conf import get_config
from i3tasks.exceptions import ArgumentError
from i3tasks.models import TaskExecution, TaskExecutionTry
from tests.faults.world import World
from tests.shop.ledger import work
from tests.shop.models import Run
from tests.support.rigs import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

FOREIGN = [
    b"",
    b"\xff\xfe",
    b"hello",
    b"[]",
    b'{"order": 7}',
    json.dumps({"meta_info": {"task_execution_id": 1}}).encode(),
]


def test_ten_megabytes_of_argument_are_a_row_and_a_small_message(world: World, settings: Any) -> None:
    large = "x" * 10_000_000
    with pytest.raises(ArgumentError, match="maximum_payload_bytes"):
        work.delay(large)
    assert not TaskExecution.objects.exists()
    settings.I3TASKS = replace(settings.I3TASKS, maximum_payload_bytes=20_000_000)
    world.worker()
    world.load(20)
    handle = work.delay(large)
    world.load(20)
    world.until_finished()
    execution = TaskExecution.objects.get(pk=handle.task_execution_id)
    # The body keeps its name in a column too short for it on PostgreSQL; either way it ended, and so did the others.
    assert execution.outcome is not None
    assert TaskExecution.objects.exclude(pk=execution.pk).filter(outcome="success").count() == 40
    assert execution.task_args == [large]


def test_messages_of_another_system_are_no_tasks_and_stop_none(world: World) -> None:
    worker = world.worker()
    topic = get_config().queue(None).topic
    published: list[object] = []

    def on_done(messages: Sequence[Outgoing], error: Exception | None) -> None:
        published.extend(messages)

    for data in FOREIGN:
        get_publisher().publish(Outgoing(topic, data, {"of": "another system"}, on_done))
    until(lambda: len(published) == len(FOREIGN))
    world.load(40)
    world.until_finished()
    until(lambda: worker.output.count("envelope_refused") >= len(FOREIGN), what=lambda: worker.output)
    assert "Traceback" not in worker.output
    world.reckon()


def test_an_unknown_task_is_put_off_and_its_neighbours_are_not(world: World) -> None:
    worker = world.worker()
    stranger = work.delay("stranger")
    TaskExecution.objects.filter(pk=stranger.task_execution_id).update(task_name="renamed_since")
    world.load(40)
    world.until_finished(40)
    worker.says("task_unregistered")
    until(lambda: not TaskExecutionTry.objects.filter(lease_until__isnull=False).exists())
    task_try = TaskExecutionTry.objects.get(task_execution=stranger.task_execution_id)
    assert (task_try.try_number, task_try.started_at, task_try.is_completed) == (1, None, False)
    assert task_try.dispatch_at is not None
    assert task_try.dispatch_at > timezone.now() + timedelta(seconds=30)
    assert not Run.objects.filter(name="stranger").exists()

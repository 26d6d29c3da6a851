"""Thousands of ways in which the world may go wrong, each decided by its seed, under the real engine on the real store.

There are no threads, no sockets and no clocks: processes, Pub/Sub and time are simulated (see tests/engine/simulation).
Messages are lost, doubled, late and out of order; processes die between any two steps; the database goes away before a
transaction, or after its COMMIT and before it has said so. Then the world calms down, and everything must add up.

    I3TASKS_SIMULATION_SEED=17 python -m pytest tests/engine/test_simulation.py     replays one schedule
    I3TASKS_SIMULATION_SECONDS=600 ...                                              looks for ten minutes
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from django.db.models import Value

from i3tasks import dispatcher, outbox
from i3tasks.store import database
from tests.engine.simulation.process import HEARTBEAT, LEASE, Process
from tests.engine.simulation.schedule import on_virtual_time, simulate

SECONDS = float(os.environ.get("I3TASKS_SIMULATION_SECONDS", "40"))
SEED = os.environ.get("I3TASKS_SIMULATION_SEED")
FIRST_SEED = int(os.environ.get("I3TASKS_SIMULATION_FIRST_SEED", "1"))

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.sqlite,
    pytest.mark.timeout(60 + 2 * SECONDS),
]


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    """Whatever asks for the time, the publisher or the writer is given those of the simulation."""
    settings.I3TASKS = replace(
        settings.I3TASKS,
        lease_seconds=LEASE,
        heartbeat_seconds=HEARTBEAT,
        publish_grace_seconds=5,
        lost_after_seconds=20,
        task_retry_backoff_base_seconds=1,
        task_retry_backoff_max_seconds=4,
    )
    monkeypatch.setattr(database, "Now", lambda: Value(Process.now()))
    monkeypatch.setattr("django.utils.timezone.now", lambda: Process.now())
    monkeypatch.setattr("i3tasks.store.writer._close_connection", lambda: None)
    monkeypatch.setattr("i3tasks.dispatcher.close_old_connections", lambda: None)
    for module in (outbox, dispatcher):
        monkeypatch.setattr(module, "get_publisher", lambda: Process.current.publisher)
    current_writer = SimpleNamespace(post=lambda *args: Process.current.writer.post(*args))
    monkeypatch.setattr(outbox, "writer", current_writer)
    monkeypatch.setattr("i3tasks.store.writer.writer", current_writer)
    with on_virtual_time():
        yield


def _seeds() -> Iterator[int]:
    if SEED is not None:
        yield int(SEED)
        return
    deadline = time.monotonic() + SECONDS
    for seed in itertools.count(FIRST_SEED):
        if time.monotonic() >= deadline:
            return
        yield seed


def test_whatever_goes_wrong_everything_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    count = steps = 0
    for seed in _seeds():
        try:
            steps += simulate(seed).timeline.steps
        except Exception as error:
            command = f"I3TASKS_SIMULATION_SEED={seed} python -m pytest tests/engine/test_simulation.py"
            raise AssertionError(f"Schedule {seed}: {error!r}\nReplay it: {command}") from error
        count += 1
    with capsys.disabled():
        print(f"\n{count} schedules, {steps} steps")


def test_a_seed_decides_everything() -> None:
    """Or a failure could not be replayed."""
    for seed in (2, 3, 5, 7, 11):
        first, again = simulate(seed), simulate(seed)
        assert (first.timeline.steps, first.timeline.seconds) == (again.timeline.steps, again.timeline.seconds)
        assert first.chance.random() == again.chance.random()

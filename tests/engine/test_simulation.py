"""Thousands of ways in which the world may go wrong, each decided by its seed, under the real engine on the real store.

There are no threads, no sockets and no clocks: processes, Pub/Sub and time are simulated (see tests/engine/simulation).
Messages are lost, doubled, late and out of order; processes die between any two steps; the database goes away before a
transaction, or after its COMMIT and before it has said so. Callers enqueue, defer, put off, cancel, close, add steps,
repeat keyed calls and roll back, at any instant; bodies fail, snooze, are late, and take their process along. Then the
world calms down, and everything must add up.

    I3TASKS_SIMULATION_SEED=17 python -m pytest tests/engine/test_simulation.py     replays one schedule
    I3TASKS_SIMULATION_SCHEDULES=20000 I3TASKS_SIMULATION_FIRST_SEED=5000 ...       looks at others, and at more
"""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db.models import Value

from i3tasks import dispatcher, outbox
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store import database, dispatching
from tests.engine.simulation import broken
from tests.engine.simulation.checks import check_audit
from tests.engine.simulation.process import HEARTBEAT, LEASE, Process
from tests.engine.simulation.schedule import Schedule, on_virtual_time, simulate

SCHEDULES = int(os.environ.get("I3TASKS_SIMULATION_SCHEDULES", "1000"))
SEED = os.environ.get("I3TASKS_SIMULATION_SEED")
FIRST_SEED = int(os.environ.get("I3TASKS_SIMULATION_FIRST_SEED", "1"))

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.sqlite,
    pytest.mark.timeout(60 + SCHEDULES / 2),
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
    monkeypatch.setattr("i3tasks.dispatcher._seconds_until_next", lambda: 0.0)  # a query, and the timeline decides
    for module in (outbox, dispatcher):
        monkeypatch.setattr(module, "get_publisher", lambda: Process.current.publisher)
    current_writer = SimpleNamespace(post=lambda *args: Process.current.writer.post(*args))
    monkeypatch.setattr(outbox, "writer", current_writer)
    monkeypatch.setattr("i3tasks.store.writer.writer", current_writer)
    with on_virtual_time():
        yield


@pytest.fixture(autouse=True)
def without_collecting() -> Iterator[None]:
    """Looking for garbage among all of Django's objects is a tenth of the time; `_run` looks now and then."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def _run(seed: int) -> Schedule:
    if seed % 50 == 0:
        gc.collect()
    try:
        return simulate(seed)
    except Exception as error:
        command = f"I3TASKS_SIMULATION_SEED={seed} python -m pytest tests/engine/test_simulation.py"
        raise AssertionError(f"Schedule {seed}: {error!r}\nReplay it: {command}") from error


def _run_all(seeds: Iterable[int]) -> int:
    """How many steps there were."""
    return sum(_run(seed).timeline.steps for seed in seeds)


def test_whatever_goes_wrong_everything_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    seeds = range(FIRST_SEED, FIRST_SEED + SCHEDULES) if SEED is None else [int(SEED)]
    steps = _run_all(seeds)
    with capsys.disabled():
        print(f"\n{len(seeds)} schedules, {steps} steps")


def test_the_audit_that_is_run_as_one_statement_finds_what_the_audit_finds() -> None:
    now = simulate(1).timeline.now
    check_audit(now)
    assert TaskExecutionTry.objects.exists()
    TaskExecution.objects.update(outcome=None)
    with pytest.raises(AssertionError, match="execution with a success but not called one"):
        check_audit(now)


@pytest.mark.skipif(SEED is not None, reason="it is for all seeds")
def test_a_seed_decides_everything() -> None:
    """Or a failure could not be replayed."""
    for seed in (2, 3, 5, 7, 11):
        assert simulate(seed).fingerprint == simulate(seed).fingerprint


@pytest.mark.skipif(SEED is not None, reason="this is the replay")
def test_a_failure_is_replayed_by_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """In another process, which has another order of its sets, and has not run the schedules before."""
    monkeypatch.setattr(dispatching, "_unclaimed", dispatching._unclaimed)  # to be there again afterwards
    broken.pytest_collection_finish()
    with pytest.raises(AssertionError, match="put off by one who had no say") as failure:
        _run_all(itertools.count(1))
    message, command = str(failure.value).split("\nReplay it: ")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "I3TASKS"))}
    replayed = subprocess.run(
        command.replace(" python ", f" {sys.executable} "),
        env={**environment, "PYTEST_ADDOPTS": f"-p {broken.__name__}", "PYTHONHASHSEED": "17"},
        cwd=Path(__file__).parents[2],
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert message in replayed.stdout, replayed.stdout + replayed.stderr

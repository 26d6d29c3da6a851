"""Thousands of ways in which the world may go wrong, each decided by its seed, under the real engine on the real store.

There are no threads, no sockets and no clocks: processes, Pub/Sub and time are simulated (see tests/engine/simulation).
Messages are lost, doubled, late and out of order; Pub/Sub falls silent, is late, and forgets all; processes die between
any two steps; the database goes away before a transaction, or after its COMMIT and before it has said so. Callers
enqueue, defer, put off, cancel, close, add steps, repeat keyed calls and roll back, and the queue is paused and
resumed, at any instant; bodies fail, alone and in groups, snooze, are late, exit in child tasks, leave transactions
open, and take their process along. Then the world calms down, and everything must add up.

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

from i3tasks.core.clock import going_by
from i3tasks.engine import dispatcher, fallback, outbox
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store import dispatching, workflows
from tests.engine.simulation import broken
from tests.engine.simulation.checks import check_audit
from tests.engine.simulation.process import HEARTBEAT, LEASE, Process
from tests.engine.simulation.schedule import CALLERS_CLOCK, Schedule, simulate

SCHEDULES = int(os.environ.get("I3TASKS_SIMULATION_SCHEDULES", "200"))
SEED = os.environ.get("I3TASKS_SIMULATION_SEED")
FIRST_SEED = int(os.environ.get("I3TASKS_SIMULATION_FIRST_SEED", "1"))

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.sqlite,
    pytest.mark.timeout(120 + SCHEDULES * 2),
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
    monkeypatch.setattr(workflows, "WRITTEN_AT_ONCE", 2)
    monkeypatch.setattr("django.utils.timezone.now", lambda: Process.now())
    monkeypatch.setattr("i3tasks.store.writer._close_connection", lambda: None)
    monkeypatch.setattr("i3tasks.store.writer.gather_seconds", lambda: 0.5)
    monkeypatch.setattr("i3tasks.threads.connections.close_old_connections", lambda: None)
    monkeypatch.setattr(
        "i3tasks.engine.dispatcher.Dispatcher._seconds_until_next", lambda self, now: 0.0
    )  # a query, and the timeline decides
    for module in (outbox, dispatcher, fallback):
        monkeypatch.setattr(module, "get_publisher", lambda: Process.current.publisher)
    posting = {
        "post": lambda *args, **options: Process.current.writer.post(*args, **options),
        "post_all": lambda *args, **options: Process.current.writer.post_all(*args, **options),
    }
    monkeypatch.setattr(outbox, "writer", SimpleNamespace(**posting))
    with going_by(CALLERS_CLOCK):
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
    now = simulate(3).timeline.now
    check_audit(now)
    assert TaskExecutionTry.objects.exists()
    TaskExecution.objects.update(outcome=None)
    with pytest.raises(
        AssertionError, match=r"execution (with a success but not called one|unfinished without an unfinished try)"
    ):
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

"""Faults under load for minutes (`nox -s soak`): nothing is lost, and what a worker holds does not grow."""

from __future__ import annotations

import os
import random
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import median

import psutil
import pytest
from django.db import connection

from tests.faults.world import World, kill_9, somewhere_in
from tests.shop.ledger import work_in_thread
from tests.support.children import Child
from tests.support.databases import end_other_connections

SECONDS = float(os.environ.get("I3TASKS_SOAK_SECONDS", "0"))

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not SECONDS, reason="takes minutes: nox -s soak, or I3TASKS_SOAK_SECONDS=600"),
    pytest.mark.timeout(SECONDS * 2 + 300),
]

SURVIVOR = "i3tasks-survivor"
MAY_GROW = {"megabytes": 15, "threads": 4, "descriptors": 8, "connections": 3, "sessions": 6}
MOST_CONNECTIONS = 4 + 16 + 16
"""What docs/workers.md promises for the default numbers of threads and lanes."""


@dataclass(frozen=True)
class Sample:
    """What the surviving worker holds; and of the database's sessions, all that there are."""

    megabytes: float
    threads: int
    descriptors: int  # files and sockets
    connections: int
    sessions: int

    @classmethod
    def of(cls, child: Child) -> Sample:
        process = psutil.Process(child.process.pid)
        held = process.memory_info().rss / 1e6, process.num_threads(), process.num_fds()
        return cls(*held, *(_sessions() if connection.vendor == "postgresql" else [_open_files(process)] * 2))


def _sessions() -> tuple[int, int]:
    """PostgreSQL's, of the survivor and altogether."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FILTER (WHERE application_name = %s), count(*)"
            " FROM pg_stat_activity WHERE datname = current_database()",
            [SURVIVOR],
        )
        mine, all_of_them = cursor.fetchone()
    return mine, all_of_them


def _open_files(process: psutil.Process) -> int:
    """How often the process has SQLite's database open: once a connection."""
    path = Path(str(connection.settings_dict["NAME"])).resolve()
    return sum(Path(file.path) == path for file in process.open_files())


def test_what_a_worker_holds_does_not_grow(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as named:
        named.setenv("PGAPPNAME", SURVIVOR)
        survivor = world.worker()
    victim = world.worker()
    samples: list[Sample] = []
    busiest = 0
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        begun = world.begun()
        world.load(200)
        world.load(40, task=work_in_thread)
        world.until_begun(begun + somewhere_in(200), 60)
        busiest = max(busiest, Sample.of(survivor).connections)
        if random.random() < 0.3:
            world.restart_emulator(world.data)
        if random.random() < 0.3 and connection.vendor == "postgresql":
            end_other_connections()
        if random.random() < 0.5:
            kill_9(victim)
            victim = world.worker()
        world.until_finished(seconds=120)
        samples.append(Sample.of(survivor))
        print(f"{len(world.names)} calls, {samples[-1]}", flush=True)
    assert survivor.process.poll() is None, survivor.output[-3000:]
    world.reckon()
    _show(samples, busiest)
    assert busiest > 0
    # SQLite keeps some files for its next connections: closing one would end the process's locks on the others.
    assert busiest <= MOST_CONNECTIONS or connection.vendor == "sqlite"
    _are_flat(samples)


def _show(samples: list[Sample], busiest: int) -> None:
    for when, index in (("at the start", 0), ("in the middle", len(samples) // 2), ("at the end", -1)):
        print(f"{when}: {samples[index]}")
    print(f"at most {busiest} connections of the survivor under load")


def _are_flat(samples: list[Sample]) -> None:
    """Compared are the second and the last third: in the first, pools and caches fill."""
    third = len(samples) // 3
    assert third >= 3, "too short a soak to tell"
    before, after = (
        [median(values) for values in zip(*map(astuple, part), strict=True)]
        for part in (samples[third : 2 * third], samples[-third:])
    )
    for field, early, late in zip(fields(Sample), before, after, strict=True):
        assert late <= early * 1.1 + MAY_GROW[field.name], f"{field.name} grew from {early:g} to {late:g}"

"""Faults under load for minutes (`nox -s soak`): nothing is lost, and what a worker holds does not grow."""

from __future__ import annotations

import os
import random
import time
from dataclasses import astuple, dataclass
from statistics import median

import psutil
import pytest

from tests.faults.world import World, kill_9, somewhere_in
from tests.shop.ledger import work_in_thread
from tests.support.children import Child

SECONDS = float(os.environ.get("I3TASKS_SOAK_SECONDS", "0"))

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not SECONDS, reason="takes minutes: nox -s soak, or I3TASKS_SOAK_SECONDS=600"),
    pytest.mark.timeout(SECONDS * 2 + 300),
]


@dataclass(frozen=True)
class Sample:
    """What a process holds."""

    megabytes: float
    threads: int
    descriptors: int  # files and sockets: database connections among them

    @classmethod
    def of(cls, child: Child) -> Sample:
        process = psutil.Process(child.process.pid)
        return cls(process.memory_info().rss / 1e6, process.num_threads(), process.num_fds())


def test_what_a_worker_holds_does_not_grow(world: World) -> None:
    survivor, victim = world.worker(), world.worker()
    samples: list[Sample] = []
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        begun = world.begun()
        world.load(200)
        world.load(40, task=work_in_thread)
        world.until_begun(begun + somewhere_in(200), 60)
        if random.random() < 0.3:
            world.restart_emulator(world.data)
        if random.random() < 0.5:
            kill_9(victim)
            victim = world.worker()
        world.until_finished(seconds=120)
        samples.append(Sample.of(survivor))
        print(f"{len(world.names)} calls, {samples[-1]}", flush=True)
    world.reckon()
    _are_flat(samples)


def _are_flat(samples: list[Sample]) -> None:
    """Compared are the second and the last third: in the first, pools and caches fill."""
    third = len(samples) // 3
    assert third >= 3, "too short a soak to tell"
    before, after = (
        [median(values) for values in zip(*map(astuple, part), strict=True)]
        for part in (samples[third : 2 * third], samples[-third:])
    )
    for name, early, late, more in zip(("megabytes", "threads", "descriptors"), before, after, (15, 4, 8), strict=True):
        assert late <= early * 1.1 + more, f"{name} grew from {early:g} to {late:g}"

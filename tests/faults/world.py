"""What the tests of faults stand on: load, kills, waiting, and the reckoning at the end."""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db.models import Count

from i3tasks.emulator import EmulatorProcess
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store.audit import audit
from i3tasks.types import PullQueue, PushQueue
from tests.shop.ledger import work
from tests.shop.models import Run
from tests.support.children import Child, Children, free_port, listens
from tests.support.databases import chosen
from tests.support.google_emulator import GoogleEmulator
from tests.support.rigs import until

ROUNDS = int(os.environ.get("I3TASKS_FAULT_ROUNDS", "1"))
"""Multiplies the rounds of each test that has some."""

OUTAGE_SECONDS = float(os.environ.get("I3TASKS_OUTAGE_SECONDS", "0"))
"""How much longer than the least that matters broker and database stay away."""

EITHER = (
    "embedded",
    pytest.param(
        "google",
        marks=[
            pytest.mark.google,
            pytest.mark.skipif(
                chosen() == "sqlite" and ROUNDS == 1 and not OUTAGE_SECONDS,
                reason="on PostgreSQL; on SQLite, too, with I3TASKS_FAULT_ROUNDS or I3TASKS_OUTAGE_SECONDS",
            ),
        ],
    ),
)
"""Both emulators, for tests that take long: of the four pairs with a database, three in every run."""

SHORT: dict[str, Any] = {
    "lease_seconds": 3,
    "heartbeat_seconds": 1,
    "publish_grace_seconds": 2,
    "lost_after_seconds": 5,
    "fallback_seconds": 2,
    "task_retry_backoff_base_seconds": 0,
    "retry_minimum_backoff_seconds": 1,
    "retry_maximum_backoff_seconds": 5,
    "ack_deadline_seconds": 10,
    "drain_seconds": 2,
}
CONCURRENCY = ("--concurrency", "100")
NO_EMULATOR = "--no-emulator"
"""Brokers are the tests' own to start and to kill."""


class World:
    """A broker, processes, and the executions that were asked for. Times are short: see SHORT."""

    def __init__(self, settings: Any, data: Path | None, google: GoogleEmulator | None = None) -> None:
        """`data` is the embedded emulator's folder; `google` takes its place, and forgets everything when it ends."""
        self._data = data
        self._settings = settings
        self.names: list[str] = []
        self.slowest_start = 0.0
        """Seconds that the slowest worker took to start, which no broker is needed for: how fast the machine is."""
        self.emulator: EmulatorProcess | GoogleEmulator = google or EmulatorProcess(data, f"127.0.0.1:{free_port()}")
        self.port = free_port()
        self.children: Children

    @contextmanager
    def open(self, host_port: str | None = None, **changes: Any) -> Iterator[World]:
        """`host_port` names a broker that runs already; else one is started. `changes` of the settings in SHORT."""
        short = {**SHORT, **changes}
        if host_port is None:
            self.emulator.start()
        pubsub = {
            "EMULATOR": True,
            "HOST": host_port or self.emulator.host_port,
            "PROJECT_ID": f"fault-{uuid.uuid4().hex[:10]}",
        }
        endpoint = f"http://127.0.0.1:{self.port}/i3/tasks-push/"
        self._settings.PUBSUB_CONFIG = pubsub
        queues = (PullQueue("heavy", "worker"), PushQueue("push", "push", endpoint))
        self._settings.I3TASKS = replace(self._settings.I3TASKS, other_queues=queues, **short)
        self.children = Children(pubsub, **short, task_modules=["tests.shop.ledger"])
        self.children.changes["push_endpoint"] = endpoint
        try:
            with self.children.all_ended():
                yield self
        finally:
            if host_port is None:
                self.emulator.kill()

    # ------------------------------------------------------------------------------------------------ processes

    def worker(self, *options: str, fault: str | None = None, **changes: Any) -> Child:
        """A worker that has started, a hundred at a time unless told otherwise."""
        began = time.monotonic()
        child = self._with_fault(fault, lambda: self.children.worker(NO_EMULATOR, *(options or CONCURRENCY), **changes))
        self.slowest_start = max(self.slowest_start, time.monotonic() - began)
        return child

    def starting(self, *arguments: str, fault: str | None = None, **changes: Any) -> Child:
        """Any process, not waited for."""
        return self._with_fault(fault, lambda: self.children.start(*arguments, **changes))

    def _with_fault(self, fault: str | None, start: Any) -> Child:
        if fault is not None:
            self.children.changes["fault"] = fault
        try:
            child: Child = start()
        finally:
            self.children.changes.pop("fault", None)
        return child

    def busy_one(self, workers: list[Child]) -> Child:
        """Take out one that runs something now, as soon as another one has started, too."""

        def busy() -> list[Child]:
            started = [worker for worker in workers if "worker_started" in worker.output]
            holders = TaskExecutionTry.objects.filter(lease_until__isnull=False).values_list("worker_id", flat=True)
            ids = {int(holder.split(":")[1]) for holder in holders.distinct()}
            return [worker for worker in started if worker.process.pid in ids and len(started) > 1]

        victim = random.choice(until(busy, what=lambda: [worker.output[-500:] for worker in workers]))
        workers.remove(victim)
        return victim

    def site(self) -> Child:
        """uvicorn, where the push queue's endpoint is."""
        arguments = ("tests.asgi:application", "--port", str(self.port), "--log-level", "warning")
        child = self.children.start("-m", "uvicorn", *arguments)
        until(lambda: listens(self.port) or child.process.poll() is not None, what=lambda: child.output)
        return child

    def restart_emulator(self, data: Path | None) -> None:
        """kill -9, and another one at the same address: over the same folder, or with nothing in memory (None)."""
        self.emulator.kill()
        if isinstance(self.emulator, EmulatorProcess):
            self.emulator = EmulatorProcess(data, self.emulator.host_port)
        self.emulator.start()

    @property
    def data(self) -> Path | None:
        """The emulator's folder."""
        return self._data

    # ------------------------------------------------------------------------------------------------------ load

    def load(self, count: int, *arguments: Any, task: Any = work) -> Sequence[Any]:
        """Enqueue that many calls in one transaction, each with a name of its own."""
        names = [f"n{len(self.names) + number}" for number in range(count)]
        self.names += names
        handles: Sequence[Any] = task.delay_many([(name, *arguments) for name in names])
        return handles

    def begun(self) -> int:
        return Run.objects.values("name").distinct().count()

    def finished(self) -> int:
        return TaskExecution.objects.filter(outcome__isnull=False).count()

    def until_begun(self, count: int, seconds: float = 30) -> None:
        until(lambda: self.begun() >= count, seconds, lambda: f"{self.begun()} of {count} had begun")

    def until_finished(self, count: int | None = None, seconds: float = 40) -> None:
        """Until that many executions have ended; without a number, until all have."""
        wanted = TaskExecution.objects.count() if count is None else count
        until(lambda: self.finished() >= wanted, seconds, lambda: self.unfinished(wanted))

    def unfinished(self, wanted: int) -> str:
        columns = ("pk", "try_number", "started_at", "dispatch_at", "lease_until", "publish_count", "worker_id")
        stuck = TaskExecutionTry.objects.filter(is_completed=False).values(*columns)[:5]
        said = "\n".join(child.output[-2000:] for child in self.children.all)
        return f"{self.finished()} of {wanted} finished; {list(stuck)}\n{said}"

    # ------------------------------------------------------------------------------------------- the reckoning

    def reckon(self, *, successes: bool = True, runs_a_try: int = 1) -> None:
        """Everything that was asked for has ended, once, and the rows add up.

        `runs_a_try` is more than one only where tries are handed back.
        """
        assert audit(overdue=timedelta(0)) == []
        call_command("i3tasks_audit", stdout=StringIO())
        assert not TaskExecution.objects.filter(outcome__isnull=True).exists()
        assert not TaskExecutionTry.objects.filter(is_completed=False).exists()
        if successes:
            assert set(TaskExecution.objects.values_list("outcome", flat=True)) <= {"success"}
            once = TaskExecution.objects.filter(tries__is_success=True).annotate(times=Count("tries"))
            assert once.count() == TaskExecution.objects.count(), "every execution has exactly one successful try"
            assert set(Run.objects.values_list("name", flat=True)) >= set(self.names), "every body ran"
        twice = Run.objects.values("try_id").annotate(times=Count("pk")).filter(times__gt=runs_a_try)
        assert not list(twice), "a try runs once"
        tries = set(TaskExecutionTry.objects.values_list("pk", flat=True))
        assert set(Run.objects.values_list("try_id", flat=True)) <= tries, "nothing ran that was not asked for"

    def lost_tries(self) -> int:
        return TaskExecutionTry.objects.filter(error_class="i3tasks.exceptions.WorkerLost").count()


def kill_9(child: Child) -> None:
    child.signal(signal.SIGKILL)
    child.ends()


def somewhere_in(count: int) -> int:
    """A random instant of a load, counted in bodies that have begun."""
    return random.randint(1, count)

"""The interface of a contestant: how its stores are emptied, its queue filled, its worker run, its results counted.

A file in `contestants/` defines one class `Contestant`. It imports nothing of the peer at its top, so that it can be
read without it; the tasks are in `contestants/tasks/`, imported once Django is set up.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from . import bodies
from .measure import Measure
from .services import await_that, listens

ROOT = Path(__file__).resolve().parents[3]
STOP_SECONDS = (5, 5)


class Contestant:
    requires: ClassVar[tuple[str, ...]] = ()
    """What pip installs in its environment; none for what runs in the harness's own."""
    services: ClassVar[tuple[str, ...]] = ()
    """Of postgres, redis, google."""
    sizes: ClassVar[dict[str, int]] = {"drain": 5000, "io": 1000, "enqueue": 3000}
    """The number of tasks, by workload."""
    interval, count = 0.05, 200
    """Workload latency: a task every so many seconds, so many times."""
    is_durable = True
    """Whether an enqueue call returns only after the broker or the database has the task."""
    database = ""
    """The name of its PostgreSQL database; "" for none."""
    tables: ClassVar[tuple[str, ...]] = ()
    """Emptied before each measure."""
    redis_databases: ClassVar[tuple[int, ...]] = ()
    """Emptied before each measure."""
    tasks = ""
    """The module of its tasks."""

    push_path = ""
    """The path of the endpoint that the variant is pushed to; "" if it is not."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.worker: subprocess.Popen[bytes] | None = None

    @property
    def bodies(self) -> tuple[str, ...]:
        """The kinds of bodies that it runs: async, sync."""
        return ("async", "sync")

    @property
    def needs(self) -> tuple[str, ...]:
        """The services that this variant uses."""
        return self.services

    def described(self) -> str:
        """What is being run, in words."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Its part of Django's settings."""
        return {}

    # ------------------------------------------------------------------------------------------------- its stores

    def setup(self) -> None:
        """Empty the stores, while no worker runs."""
        if self.database:
            self._make_database()
            if self.tables:
                self.sql(f"TRUNCATE {', '.join(self.tables)} CASCADE")
        for number in self.redis_databases:
            self.redis(number).flushdb()

    def completed(self) -> int:
        """The tasks that its own store says are done."""
        raise NotImplementedError

    def queued(self) -> int | None:
        """The tasks that its store has, done or not, to verify `enqueue`; None if it can't tell."""
        return None

    # ------------------------------------------------------------------------------- its broker, if it is pushed to

    @property
    def subscription(self) -> str:
        """The full name of the subscription that is pushed."""
        raise NotImplementedError

    @property
    def subscriber(self) -> Any:
        """A client of Google's for it."""
        raise NotImplementedError

    def push_to(self, config: dict[str, str]) -> None:
        """Have the emulator push; with no endpoint, no longer."""
        self.subscriber.modify_push_config(subscription=self.subscription, push_config=config)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.measure.http_port}{self.push_path}"

    def uvicorn(self, application: str) -> list[str]:
        """The command that serves an application: one process, as uvicorn's documentation recommends it."""
        options = ["--port", str(self.measure.http_port), "--log-level", "warning", "--lifespan", "off"]
        return [sys.executable, "-m", "uvicorn", application, *options]

    # ------------------------------------------------------------------------------------------------- enqueueing

    def enqueue_one(self, index: int, kind: str) -> None:
        raise NotImplementedError

    def enqueue(self, count: int, kind: str, start: int = 0) -> None:
        """Enqueue tasks one call after the other."""
        for index in range(start, start + count):
            self.enqueue_one(index, kind)

    def fill(self, count: int, kind: str, start: int = 0) -> None:
        """Enqueue tasks in the quickest way, which is not measured."""
        self.enqueue(count, kind, start)

    def ways(self) -> dict[str, Callable[[int, str], Any]]:
        """Other ways to enqueue so many tasks of a kind, by name. What they return is the number of tasks, if given."""
        return {}

    # ----------------------------------------------------------------------------------------------------- worker

    def worker_command(self, kind: str) -> list[str]:
        raise NotImplementedError

    def start_worker(self, kind: str) -> int:
        """Start it; returns its process id."""
        with open(self.measure.log, "ab") as log:
            self.worker = subprocess.Popen(
                self.worker_command(kind),
                cwd=ROOT,
                env=self.measure.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.worker.pid

    def activate(self) -> None:
        """Do what has to wait until the worker was started: tell the broker where it listens.

        The workload `push` pushes itself.
        """
        if self.push_path:
            await_that(lambda: listens(self.measure.http_port), "the server")
            if self.measure.workload != "push":
                self.push_to({"push_endpoint": self.endpoint})

    def check_worker(self) -> None:
        """Raise if the worker has ended."""
        if self.worker is not None and self.worker.poll() is not None:
            raise RuntimeError(f"The worker ended with code {self.worker.returncode}; see {self.measure.log}.")

    def stop_worker(self) -> None:
        """End the worker and what it started: its process group, asked first and killed after some seconds."""
        worker, self.worker = self.worker, None
        if worker is None:
            return
        for number, seconds in zip((signal.SIGTERM, signal.SIGKILL), STOP_SECONDS, strict=True):
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, number)
            deadline = time.monotonic() + seconds
            while _group_lives(worker) and time.monotonic() < deadline:
                time.sleep(0.02)
        worker.wait(5)

    def wait(self, count: int, kind: str, deadline: float) -> tuple[int, int]:
        """Wait until so many tasks are done in the store; returns their number and the time in ns."""
        record = Path(self.measure.record)
        while time.monotonic() < deadline and bodies.count(record) < count * bodies.records_of(kind):
            self.check_worker()
            time.sleep(0.02)
        while True:
            done, now = self.completed(), time.time_ns()
            if done >= count or time.monotonic() >= deadline:
                return done, now
            time.sleep(0.01)

    def teardown(self) -> None:
        try:
            if self.worker is not None and self.push_path:
                self.push_to({})
        finally:
            self.stop_worker()

    # ---------------------------------------------------------------------------------------------------- helpers

    @cached_property
    def functions(self) -> Any:
        """The module of its tasks."""
        import importlib

        return importlib.import_module(f"tests.benchmarks.contestants.tasks.{self.tasks}")

    def program(self, name: str) -> str:
        """A console script of the interpreter that is running."""
        return str(Path(sys.executable).parent / name)

    def manage(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "django", *arguments]

    def django_database(self) -> dict[str, Any]:
        """Django's DATABASES for its own database."""
        server = {"HOST": self.measure.services.postgres, "USER": "bench", "CONN_MAX_AGE": None}
        return {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": f"bench_{self.database}", **server}}

    def dsn(self, name: str = "") -> str:
        """The connection string of its database, or of another."""
        return f"host={self.measure.services.postgres} user=bench dbname={name or f'bench_{self.database}'}"

    def redis_url(self, number: int = 0) -> str:
        return f"redis://127.0.0.1:{self.measure.services.redis_port}/{number}"

    def redis(self, number: int = 0) -> Any:
        import redis

        return redis.Redis.from_url(self.redis_url(number))

    @cached_property
    def _connection(self) -> Any:
        import psycopg

        return psycopg.connect(self.dsn(), autocommit=True)

    def sql(self, query: str) -> Any:
        """The first value that a query gives, if it gives rows."""
        cursor = self._connection.execute(query)
        return cursor.fetchone()[0] if cursor.description else None

    def migrate(self) -> None:
        subprocess.run(self.manage("migrate", "-v", "0"), cwd=ROOT, env=self.measure.environment(), check=True)

    def _make_database(self) -> None:
        """Make and migrate its database, once in a run."""
        import psycopg

        name = f"bench_{self.database}"
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                return
            connection.execute(f'CREATE DATABASE "{name}"')
            try:
                self.migrate()
            except BaseException:
                connection.execute(f'DROP DATABASE "{name}"')
                raise


def _group_lives(worker: subprocess.Popen[bytes]) -> bool:
    worker.poll()
    try:
        os.killpg(worker.pid, 0)
    except ProcessLookupError:
        return False
    return True


def contestant_class(name: str) -> type[Contestant]:
    """The class in the contestant's file."""
    found: type[Contestant] = importlib.import_module(f"tests.benchmarks.contestants.{name}").Contestant
    return found

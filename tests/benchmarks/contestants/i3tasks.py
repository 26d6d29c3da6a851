"""i3tasks: coroutine bodies in `i3tasks run-worker`, on PostgreSQL and Google's Pub/Sub emulator.

A variant is words joined by "_":

embedded  on the project's own emulator, its data on disk
database  on a DatabaseQueue, without any broker
push      with_push() under uvicorn, one process, instead of a worker
view      the push view without with_push()
threads   plain functions in threads (16; 100 for those that sleep) instead of coroutines
sqlite    on SQLite, with the options that the documentation gives, instead of PostgreSQL
prepared  with statements that psycopg prepares
admin     with Django's admin installed
beside    in a database of its own, whose rows are kept, to be beside many that have ended
cN        --concurrency N instead of 500
streamsN  --streams N instead of 1
processesN  --processes N instead of 1
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from ...support.databases import SQLITE_OPTIONS
from ..harness.contestant import ROOT
from ..harness.contestant import Contestant as Base
from ..harness.services import await_that

TRIES = "SELECT count(*) FROM i3tasks_taskexecutiontry"
LAST = "SELECT coalesce(max(id), 0) FROM i3tasks_taskexecutiontry"
POLL_SECONDS = 0.05
PUBLISHING_SECONDS = 600
"""For the largest backlog; a measure of the usual size ends by its own limit."""
_PROCESSORS = [
    f"django.{name}" for name in ("template.context_processors.request", "contrib.auth.context_processors.auth")
]
_DJANGO_TEMPLATES = "django.template.backends.django.DjangoTemplates"
ADMIN: dict[str, Any] = {
    "INSTALLED_APPS": [
        *(f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "sessions", "messages")),
        "i3tasks",
    ],
    "TEMPLATES": [
        {"BACKEND": _DJANGO_TEMPLATES, "APP_DIRS": True, "OPTIONS": {"context_processors": _PROCESSORS}},
    ],
}


class Contestant(Base):
    tables = ("i3tasks_taskexecution",)
    tasks = "i3tasks"

    def __init__(self, measure: Any) -> None:
        super().__init__(measure)
        self._words = set(measure.words)
        self._last_before = 0
        self.database = "i3tasks_beside" if "beside" in self._words else "i3tasks"
        if self._words & {"sqlite", "beside"}:
            self.tables = ()
        if "sqlite" in self._words:
            self.database = ""
        many = 2000 if "push" in self._words else 10_000
        self.sizes = {"drain": many, "io": 1000, "enqueue": 3000, "push": 2000}

    @property
    def push_path(self) -> str:  # type: ignore[override]
        return "/i3/tasks-push/" if "push" in self._words else ""

    @property
    def bodies(self) -> tuple[str, ...]:
        return ("sync",) if "threads" in self._words else ("async",)

    @property
    def needs(self) -> tuple[str, ...]:
        emulator = "embedded" if "embedded" in self._words else "google"
        database = () if "sqlite" in self._words else ("postgres",)
        return database if "database" in self._words else (*database, emulator)

    def described(self) -> str:
        way = "push view" if "view" in self._words else "with_push()"
        worker = f"uvicorn, {way}, concurrency {self._concurrency}"
        if "push" not in self._words:
            worker = " ".join(["i3tasks run-worker", *self._options("noop")])
        broker = "embedded emulator" if "embedded" in self._words else "Google's emulator"
        broker = f"DatabaseQueue, poll_seconds={POLL_SECONDS}" if "database" in self._words else broker
        return f"{worker}; {'SQLite' if 'sqlite' in self._words else 'PostgreSQL'}; {broker}"

    def settings(self) -> dict[str, Any]:
        from i3tasks.types import DatabaseQueue, I3TasksSettings, PullQueue, PushQueue

        queue: Any = PullQueue("queue", "worker")
        if "database" in self._words:
            queue = DatabaseQueue("queue", poll_seconds=POLL_SECONDS)
        elif "push" in self._words:
            queue = PushQueue("queue", "worker", self.endpoint)
        return {
            "DATABASES": self._sqlite() if "sqlite" in self._words else self._postgres(),
            **(ADMIN if "admin" in self._words else {"INSTALLED_APPS": ["i3tasks"]}),
            "BENCH_URLS": {"i3/": "i3tasks.urls"},
            "BENCH_PUSH_IN_FRONT": "push" in self._words and "view" not in self._words,
            "PUBSUB_CONFIG": {"EMULATOR": True, "HOST": self.measure.emulator, "PROJECT_ID": "bench"},
            "I3TASKS": I3TasksSettings(
                namespace=self.measure.run_id,
                default_queue=queue,
                task_modules=("tests.benchmarks.contestants.tasks.i3tasks",),
                concurrency=self._concurrency,
                # The endpoint is set by `activate`, so that the emulator does not back off while no server is up.
                run_queue_create_command_on_startup="push" not in self._words,
            ),
        }

    # ------------------------------------------------------------------------------------------------- its stores

    def setup(self) -> None:
        if "sqlite" in self._words:
            self._new_sqlite()
        super().setup()
        if "beside" in self._words:
            self._last_before = int(self.sql(LAST))
        if "push" in self._words:
            self._make_subscription()
        elif "database" not in self._words:
            from django.core.management import call_command

            call_command("i3tasks_ensure_pubsub", verbosity=0)

    def completed(self) -> int:
        return int(self.sql(f"{TRIES} WHERE id > {self._last_before} AND is_completed AND is_success"))

    def queued(self) -> int:
        self._await_publishing()  # or the publishing of one way would slow the next one down
        return int(self.sql(TRIES))

    def sql(self, query: str) -> Any:
        if "sqlite" not in self._words:
            return super().sql(query)
        import sqlite3  # late: workers on PostgreSQL have no other use for it

        with sqlite3.connect(self._sqlite_file, timeout=20) as connection:
            return (connection.execute(query).fetchone() or (None,))[0]

    # ------------------------------------------------------------------------------------------------- enqueueing

    def enqueue_one(self, index: int, kind: str) -> None:
        self.functions.TASKS[kind].delay(index)

    def fill(self, count: int, kind: str, start: int = 0) -> None:
        self.functions.delay_many(count, kind, start)
        if self.measure.workload != "load":
            self._await_publishing()

    def ways(self) -> dict[str, Callable[[int, str], Any]]:
        tasks = self.functions
        return {
            "delay_many": tasks.delay_many,
            "delay_many, 1,000 at a time": tasks.delay_many_in_parts,
            "a group": tasks.in_a_group,
            "two plain inserts": tasks.by_plain_inserts,
            "adelay one by one": lambda count, kind: asyncio.run(tasks.adelay_one_by_one(count, kind)),
            "adelay, 1,000 at once": lambda count, kind: asyncio.run(tasks.adelay_at_once(count, kind)),
        }

    def _await_publishing(self) -> None:
        """Until all that was enqueued is published and the rows know it."""
        from i3tasks.broker.publisher import get_publisher

        if "database" not in self._words and not get_publisher().flush(PUBLISHING_SECONDS):
            raise TimeoutError(f"Not published within {PUBLISHING_SECONDS} seconds.")
        unpublished = f"{TRIES} WHERE publish_count = 0 AND run_after IS NULL AND NOT is_completed"
        await_that(lambda: not self.sql(unpublished), "the confirmations of publishes", PUBLISHING_SECONDS)

    # ----------------------------------------------------------------------------------------------------- worker

    def worker_command(self, kind: str) -> list[str]:
        if "push" not in self._words:
            return [self.program("i3tasks"), "run-worker", *self._options(kind)]
        return self.uvicorn("tests.benchmarks.project.asgi:application")

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            for end in ("", "-wal", "-shm"):
                Path(f"{self._sqlite_file}{end}").unlink(missing_ok=True)

    @property
    def _concurrency(self) -> int:
        return self._number("c", 500)

    def _number(self, name: str, otherwise: int) -> int:
        """The number in a word such as c500."""
        numbers = [word.removeprefix(name) for word in self._words if word.startswith(name)]
        return next((int(number) for number in numbers if number.isdigit()), otherwise)

    def _options(self, kind: str) -> list[str]:
        options = ["--concurrency", str(self._concurrency), "--streams", str(self._number("streams", 1))]
        if processes := self._number("processes", 0):
            options += ["--processes", str(processes)]
        if "threads" in self._words:
            options += ["--threads", "100" if kind.startswith("io") else "16"]
        return options

    # ------------------------------------------------------------------------------------------------- its broker

    @cached_property
    def _clients(self) -> tuple[Any, Any]:
        """A publisher's and a subscriber's client."""
        from i3tasks.broker.clients import make_admin
        from i3tasks.conf import get_config

        return make_admin(get_config().pubsub)

    @property
    def subscriber(self) -> Any:
        return self._clients[1]

    @property
    def subscription(self) -> str:
        from i3tasks.conf import get_config

        return get_config().queue(None).subscription

    def _make_subscription(self) -> None:
        from i3tasks.conf import get_config

        names = get_config().queue(None)
        publisher, subscriber = self._clients
        publisher.create_topic(name=names.topic)
        backoff = {"minimum_backoff": {"seconds": 10}, "maximum_backoff": {"seconds": 600}}
        request = {"name": names.subscription, "topic": names.topic, "ack_deadline_seconds": 60}
        subscriber.create_subscription(request={**request, "retry_policy": backoff})

    # ----------------------------------------------------------------------------------------------------- SQLite

    @property
    def _sqlite_file(self) -> str:
        return f"{self.measure.record}.sqlite3"

    def _postgres(self) -> dict[str, Any]:
        databases = self.django_database()
        if "prepared" in self._words:
            databases["default"]["OPTIONS"] = {"server_side_binding": True, "prepare_threshold": 5}
        return databases

    def _sqlite(self) -> dict[str, Any]:
        options = {"OPTIONS": SQLITE_OPTIONS, "CONN_MAX_AGE": None}
        return {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": self._sqlite_file, **options}}

    def _new_sqlite(self) -> None:
        """A migrated file, made once for all measures of a run."""
        import sqlite3

        made = Path(self.measure.record).parent / "migrated.sqlite3"
        if not made.exists():
            subprocess.run(self.manage("migrate", "-v", "0"), cwd=ROOT, env=self.measure.environment(), check=True)
            with sqlite3.connect(self._sqlite_file) as connection:
                connection.execute("VACUUM INTO ?", [str(made)])
        for end in ("", "-wal", "-shm"):
            Path(f"{self._sqlite_file}{end}").unlink(missing_ok=True)
        shutil.copy(made, self._sqlite_file)

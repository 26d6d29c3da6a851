"""procrastinate on PostgreSQL, through its Django integration; a variant is the worker's concurrency (100)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..harness.contestant import Contestant as Base


class Contestant(Base):
    requires = ("procrastinate[django]", "django<6.2", "psycopg[binary,pool]")
    services = ("postgres",)
    database = "procrastinate"
    tables = ("procrastinate_jobs",)
    sizes = {"drain": 3000, "io": 1000, "enqueue": 2000}
    tasks = "procrastinate"

    def described(self) -> str:
        return f"manage.py procrastinate worker --concurrency {self._concurrency}"

    @property
    def _concurrency(self) -> str:
        return self.measure.variant or "100"

    def settings(self) -> dict[str, Any]:
        return {
            "DATABASES": self.django_database(),
            "INSTALLED_APPS": ["django.contrib.contenttypes", "procrastinate.contrib.django"],
            "PROCRASTINATE_IMPORT_PATHS": ["tests.benchmarks.contestants.tasks.procrastinate"],
        }

    def enqueue_one(self, index: int, kind: str) -> None:
        self.functions.TASKS[kind].defer(index=index)

    def fill(self, count: int, kind: str, start: int = 0) -> None:
        self.functions.TASKS[kind].batch_defer(*({"index": index} for index in range(start, start + count)))

    def ways(self) -> dict[str, Callable[[int, str], Any]]:
        return {
            "batch_defer": self.fill,
            "defer_async one by one": lambda count, kind: asyncio.run(self.functions.defer_async(count, kind)),
        }

    def worker_command(self, kind: str) -> list[str]:
        return self.manage("procrastinate", "worker", "--concurrency", self._concurrency)

    def completed(self) -> int:
        return int(self.sql("SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"))

    def queued(self) -> int:
        return int(self.sql("SELECT count(*) FROM procrastinate_jobs"))

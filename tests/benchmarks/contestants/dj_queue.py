"""dj-queue on PostgreSQL: a worker of three threads, as it is by default; a variant is the number of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..harness.contestant import Contestant as Base


class Contestant(Base):
    requires = ("dj-queue[postgres]", "django>=6.0,<6.2", "psycopg[binary,pool]")
    services = ("postgres",)
    database = "dj_queue"
    tables = ("dj_queue_jobs",)
    sizes = {"drain": 3000, "io": 1000, "enqueue": 2000}
    tasks = "django_tasks"

    def described(self) -> str:
        return f"manage.py dj_queue, {self._threads} threads"

    @property
    def _threads(self) -> int:
        return int(self.measure.variant or 3)

    def settings(self) -> dict[str, Any]:
        workers = {} if not self.measure.variant else {"workers": [{"queues": "*", "threads": self._threads}]}
        backend = {"BACKEND": "dj_queue.backend.DjQueueBackend", "QUEUES": [], "OPTIONS": workers}
        return {
            "DATABASES": self.django_database(),
            "INSTALLED_APPS": ["django.contrib.contenttypes", "dj_queue"],
            "DATABASE_ROUTERS": ["dj_queue.routers.DjQueueRouter"],
            "TASKS": {"default": backend},
        }

    def enqueue_one(self, index: int, kind: str) -> None:
        self.functions.TASKS[kind].enqueue(index)

    def fill(self, count: int, kind: str, start: int = 0) -> None:
        task = self.functions.TASKS[kind]
        task.get_backend().enqueue_all([(task, [index], {}) for index in range(start, start + count)])

    def ways(self) -> dict[str, Callable[[int, str], Any]]:
        return {"enqueue_all": self.fill}

    def worker_command(self, kind: str) -> list[str]:
        return self.manage("dj_queue")

    def completed(self) -> int:
        return int(self.sql("SELECT count(*) FROM dj_queue_jobs WHERE finished_at IS NOT NULL"))

    def queued(self) -> int:
        return int(self.sql("SELECT count(*) FROM dj_queue_jobs"))

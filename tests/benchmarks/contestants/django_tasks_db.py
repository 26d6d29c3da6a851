"""django-tasks-db on PostgreSQL. Its worker polls every second; the variant `fast` every 0.05 s."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..harness.contestant import Contestant as Base

TABLE = "django_tasks_database_dbtaskresult"


class Contestant(Base):
    requires = ("django-tasks-db", "django>=6.0,<6.2", "psycopg[binary,pool]")
    services = ("postgres",)
    database = "django_tasks_db"
    tables = (TABLE,)
    sizes = {"drain": 2000, "io": 1000, "enqueue": 2000}
    tasks = "django_tasks"

    def described(self) -> str:
        return " ".join(["manage.py db_worker --no-startup-delay", *self._interval])

    @property
    def _interval(self) -> list[str]:
        return ["--interval", "0.05"] if self.measure.variant == "fast" else []

    def settings(self) -> dict[str, Any]:
        return {
            "DATABASES": self.django_database(),
            "INSTALLED_APPS": ["django.contrib.contenttypes", "django_tasks_db"],
            "TASKS": {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}},
        }

    def enqueue_one(self, index: int, kind: str) -> None:
        self.functions.TASKS[kind].enqueue(index)

    def ways(self) -> dict[str, Callable[[int, str], Any]]:
        return {"aenqueue one by one": lambda count, kind: asyncio.run(self.functions.aenqueue(count, kind))}

    def worker_command(self, kind: str) -> list[str]:
        return self.manage("db_worker", "--no-startup-delay", "-v", "0", *self._interval)

    def completed(self) -> int:
        return int(self.sql(f"SELECT count(*) FROM {TABLE} WHERE status = 'SUCCESSFUL'"))

    def queued(self) -> int:
        return int(self.sql(f"SELECT count(*) FROM {TABLE}"))

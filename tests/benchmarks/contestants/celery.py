"""Celery with Redis, results in PostgreSQL through django-celery-results, database connections kept.

Without `CELERY_DB_REUSE_MAX` its Django fixup reconnects around every task. A variant is the pool: prefork (2
processes) or threads (100).
"""

from __future__ import annotations

from typing import Any

from ..harness.contestant import Contestant as Base


class Contestant(Base):
    requires = ("celery[redis]", "django-celery-results", "django<6.2", "psycopg[binary,pool]")
    services = ("postgres", "redis")
    database = "celery"
    tables = ("django_celery_results_taskresult",)
    redis_databases = (3,)
    sizes = {"drain": 2000, "io": 1000, "enqueue": 2000}
    tasks = "celery"
    bodies = ("sync",)

    def described(self) -> str:
        return f"celery worker {' '.join(self._pool)}; broker in Redis, results in PostgreSQL, connections reused"

    @property
    def _pool(self) -> list[str]:
        return ["-P", "threads", "-c", "100"] if self.measure.variant == "threads" else ["-P", "prefork", "-c", "2"]

    def settings(self) -> dict[str, Any]:
        apps = ["django.contrib.contenttypes", "django_celery_results"]
        return {"DATABASES": self.django_database(), "INSTALLED_APPS": apps}

    def enqueue_one(self, index: int, kind: str) -> None:
        self.functions.TASKS[kind].delay(index)

    def worker_command(self, kind: str) -> list[str]:
        options = ["-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        app = "tests.benchmarks.contestants.tasks.celery:app"
        return [self.program("celery"), "-A", app, "worker", *self._pool, *options]

    def completed(self) -> int:
        return int(self.sql("SELECT count(*) FROM django_celery_results_taskresult WHERE status = 'SUCCESS'"))

    def queued(self) -> int:
        return int(self.redis(3).llen(self.measure.run_id))

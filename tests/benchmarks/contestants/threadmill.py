"""threadmill on Redis: two processes of one thread (of 50 for tasks that sleep)."""

from __future__ import annotations

from typing import Any

from ..harness.contestant import Contestant as Base

RESULTS = "threadmill:{default}:results:default:successful"
QUEUE = "threadmill:{default}:queue:default"


class Contestant(Base):
    requires = ("threadmill[redis]", "django>=6.0,<6.2")
    services = ("redis",)
    redis_databases = (8,)
    sizes = {"drain": 5000, "io": 1000, "enqueue": 3000}
    tasks = "django_tasks"

    def described(self) -> str:
        return "manage.py threadmill worker --workers 2 (--threads 50 for io); tasks and results in Redis"

    def settings(self) -> dict[str, Any]:
        backend = {"BACKEND": "threadmill.backends.redis.RedisTaskBackend", "REDIS_URL": self.redis_url(8)}
        return {"INSTALLED_APPS": ["threadmill"], "TASKS": {"default": backend}}

    def enqueue_one(self, index: int, kind: str) -> None:
        self.functions.TASKS[kind].enqueue(index)

    def worker_command(self, kind: str) -> list[str]:
        threads = "50" if kind.startswith("io") else "1"
        return self.manage("threadmill", "worker", "--workers", "2", "--threads", threads)

    def completed(self) -> int:
        return int(self.redis(8).zcard(RESULTS))

    def queued(self) -> int:
        return int(self.redis(8).zcard(QUEUE))

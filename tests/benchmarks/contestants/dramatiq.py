"""dramatiq with Redis, results in Redis, two processes of eight threads (50 for tasks that sleep). No Django."""

from __future__ import annotations

from ..harness.contestant import Contestant as Base

PROCESSES, THREADS, THREADS_FOR_IO = 2, 8, 50


class Contestant(Base):
    requires = ("dramatiq[redis]", "django<6.2")
    services = ("redis",)
    redis_databases = (6, 7)
    sizes = {"drain": 5000, "io": 1000, "enqueue": 5000}
    tasks = "dramatiq"

    def described(self) -> str:
        return f"dramatiq -p {PROCESSES} -t {THREADS} (-t {THREADS_FOR_IO} for io); broker and results in Redis"

    def enqueue_one(self, index: int, kind: str) -> None:
        self.functions.TASKS[kind].send(index)

    def worker_command(self, kind: str) -> list[str]:
        threads = THREADS_FOR_IO if kind.startswith("io") else THREADS
        options = ["-p", str(PROCESSES), "-t", str(threads), "--skip-logging"]
        return [self.program("dramatiq"), "tests.benchmarks.contestants.tasks.dramatiq", *options]

    def completed(self) -> int:
        return int(self.redis(7).dbsize())

    def queued(self) -> int:
        return int(self.redis(6).llen("dramatiq:default"))

"""django-i3tasks 0.1.9: its pull worker; the variant `push` is its push view under uvicorn, one process.

With `_embedded` on the embedded emulator instead of Google's.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from ..harness.contestant import Contestant as Base


class Contestant(Base):
    requires = (
        "django-i3tasks==0.1.9",
        "google-cloud-pubsub",
        "uvicorn[standard]",
        "django<6.2",
        "psycopg[binary,pool]",
    )
    services = ("postgres", "google")
    database = "django_i3tasks"
    tables = ("i3tasks_taskexecution",)
    sizes = {"drain": 1000, "io": 1000, "enqueue": 500, "push": 500}
    tasks = "django_i3tasks"
    bodies = ("sync",)  # it would call a coroutine function and not await it

    @property
    def queue(self) -> str:
        return "push" if "push" in self.measure.words else "pull"

    @property
    def needs(self) -> tuple[str, ...]:
        return ("postgres", "embedded" if "embedded" in self.measure.words else "google")

    @property
    def push_path(self) -> str:  # type: ignore[override]
        return "/i3/tasks-push/" if self.queue == "push" else ""

    def described(self) -> str:
        return "uvicorn, push view" if self.queue == "push" else "manage.py i3tasks_worker, one message at a time"

    def settings(self) -> dict[str, Any]:
        from django_i3tasks.types import I3TasksSettings, PullQueue, PushQueue

        admin = ["contenttypes", "auth", "admin", "messages", "sessions"]  # its models import the admin
        return {
            "DATABASES": self.django_database(),
            "INSTALLED_APPS": [*(f"django.contrib.{name}" for name in admin), "django_i3tasks"],
            "BENCH_URLS": {"i3/": "django_i3tasks.urls"},
            "PUBSUB_CONFIG": {
                "EMULATOR": True,
                "HOST": self.measure.emulator,
                "PROJECT_ID": "bench",
                "CREDENTIALS": False,
            },
            "I3TASKS": I3TasksSettings(
                namespace=self.measure.run_id,
                default_queue=PushQueue("push", "push", self.endpoint),
                other_queues=(PullQueue("pull", "pull"),),
                schedules=(),
                run_queue_create_command_on_startup=False,
            ),
        }

    def setup(self) -> None:
        super().setup()
        from google.cloud import pubsub_v1

        topic = f"projects/bench/topics/{self.measure.run_id}.{self.queue}"
        pubsub_v1.PublisherClient().create_topic(name=topic)
        # As its i3tasks_ensure_pubsub makes it; but the push endpoint is set by `activate`.
        backoff = {"minimum_backoff": {"seconds": 10}, "maximum_backoff": {"seconds": 600}}
        self.subscriber.create_subscription(
            request={"name": self.subscription, "topic": topic, "retry_policy": backoff}
        )

    @cached_property
    def subscriber(self) -> Any:
        from google.cloud import pubsub_v1

        return pubsub_v1.SubscriberClient()

    @property
    def subscription(self) -> str:
        return f"projects/bench/subscriptions/{self.measure.run_id}.{self.queue}.{self.queue}"

    def enqueue_one(self, index: int, kind: str) -> None:
        self.functions.TASKS[kind].delay(index)

    def worker_command(self, kind: str) -> list[str]:
        if self.queue == "pull":
            return self.manage("i3tasks_worker", "--queue=pull")
        return self.uvicorn("tests.benchmarks.project.asgi:application")

    def completed(self) -> int:
        return int(self.sql("SELECT count(*) FROM i3tasks_taskexecutionresult"))

    def queued(self) -> int:
        return int(self.sql("SELECT count(*) FROM i3tasks_taskexecutiontry"))

"""django-i3tasks 0.1.9: its pull worker; the variant `push` is its push view under uvicorn, one process."""

from __future__ import annotations

import sys
from functools import cached_property
from typing import Any

from ..harness.contestant import Contestant as Base
from ..harness.services import await_that, listens


class Contestant(Base):
    requires = ("django-i3tasks==0.1.9", "google-cloud-pubsub", "uvicorn", "django<6.2", "psycopg[binary,pool]")
    services = ("postgres", "google")
    database = "django_i3tasks"
    tables = ("i3tasks_taskexecution",)
    sizes = {"drain": 1000, "io": 1000, "enqueue": 500}
    tasks = "django_i3tasks"
    bodies = ("sync",)  # it would call a coroutine function and not await it

    @property
    def queue(self) -> str:
        return "push" if self.measure.variant == "push" else "pull"

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
                "HOST": self.measure.services.emulator,
                "PROJECT_ID": "bench",
                "CREDENTIALS": False,
            },
            "I3TASKS": I3TasksSettings(
                namespace=self.measure.run_id,
                default_queue=PushQueue("push", "push", self._endpoint),
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
        self._subscriber.create_subscription(
            request={"name": self._subscription, "topic": topic, "retry_policy": backoff}
        )

    @cached_property
    def _subscriber(self) -> Any:
        from google.cloud import pubsub_v1

        return pubsub_v1.SubscriberClient()

    @property
    def _subscription(self) -> str:
        return f"projects/bench/subscriptions/{self.measure.run_id}.{self.queue}.{self.queue}"

    @property
    def _endpoint(self) -> str:
        return f"http://127.0.0.1:{self.measure.http_port}/i3/tasks-push/"

    def enqueue_one(self, index: int, kind: str) -> None:
        self.functions.TASKS[kind].delay(index)

    def worker_command(self, kind: str) -> list[str]:
        if self.queue == "pull":
            return self.manage("i3tasks_worker", "--queue=pull")
        options = ["--port", str(self.measure.http_port), "--log-level", "warning", "--lifespan", "off"]
        return [sys.executable, "-m", "uvicorn", "tests.benchmarks.project.asgi:application", *options]

    def activate(self) -> None:
        if self.queue == "push":
            await_that(lambda: listens(self.measure.http_port), "uvicorn")
            self._push_to({"push_endpoint": self._endpoint})

    def _push_to(self, config: dict[str, str]) -> None:
        self._subscriber.modify_push_config(subscription=self._subscription, push_config=config)

    def teardown(self) -> None:
        try:
            if self.queue == "push":
                self._push_to({})
        finally:
            super().teardown()

    def completed(self) -> int:
        return int(self.sql("SELECT count(*) FROM i3tasks_taskexecutionresult"))

    def queued(self) -> int:
        return int(self.sql("SELECT count(*) FROM i3tasks_taskexecutiontry"))

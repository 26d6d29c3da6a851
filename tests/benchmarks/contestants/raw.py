"""Google's client libraries alone: no task library, no stored result. The limit of the transport, not a peer.

Variants: stream (SubscriberClient.subscribe, the default), aio (grpc.aio, one StreamingPull, acks in batches), push (a
bare asyncio HTTP server that the emulator pushes to), push_asgi (a bare ASGI application under uvicorn). With
`_embedded` on the project's own emulator instead of Google's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from ..harness import bodies
from ..harness.contestant import Contestant as Base


class Contestant(Base):
    services = ("google",)
    sizes = {"drain": 20_000, "io": 1000, "enqueue": 500, "push": 20_000}
    tasks = "raw"

    def described(self) -> str:
        return f"google-cloud-pubsub alone, {self._variant}; no stored results"

    @property
    def _variant(self) -> str:
        return "_".join(word for word in self.measure.words if word != "embedded") or "stream"

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple("embedded" if "embedded" in self.measure.words else name for name in self.services)

    @property
    def push_path(self) -> str:  # type: ignore[override]
        return "/" if "push" in self.measure.words else ""

    @property
    def bodies(self) -> tuple[str, ...]:
        return ("sync",) if self._variant == "stream" else ("async",)

    @property
    def topic(self) -> str:
        return f"projects/bench/topics/raw-{self.measure.run_id}"

    @property
    def subscription(self) -> str:
        return f"projects/bench/subscriptions/raw-{self.measure.run_id}"

    @cached_property
    def publisher(self) -> Any:
        from google.cloud import pubsub_v1

        return pubsub_v1.PublisherClient()

    @cached_property
    def subscriber(self) -> Any:
        from google.cloud import pubsub_v1

        return pubsub_v1.SubscriberClient()

    def setup(self) -> None:
        super().setup()
        self.publisher.create_topic(name=self.topic)
        self.subscriber.create_subscription(
            request={"name": self.subscription, "topic": self.topic, "ack_deadline_seconds": 60}
        )

    def message(self, index: int, kind: str) -> bytes:
        return b"%d" % index

    def enqueue_one(self, index: int, kind: str) -> None:
        self.publisher.publish(self.topic, self.message(index, kind)).result()

    def fill(self, count: int, kind: str, start: int = 0) -> None:
        messages = [self.message(index, kind) for index in range(start, start + count)]
        for future in [self.publisher.publish(self.topic, message) for message in messages]:
            future.result()

    def ways(self) -> dict[str, Callable[[int, str], Any]]:
        return {"in batches": self.fill}

    def worker_command(self, kind: str) -> list[str]:
        if self._variant == "push_asgi":
            return self.uvicorn("tests.benchmarks.contestants.tasks.raw:application")
        return [sys.executable, "-m", "tests.benchmarks.contestants.tasks.raw", self._variant, kind]

    def completed(self) -> int:
        """It stores nothing: the bodies that ended."""
        last = 1 if self.measure.kind.startswith("io") else 0
        return len({index for index, _, phase in bodies.read(Path(self.measure.record)) if phase == last})

"""Brokers to test against: the embedded emulator and Google's, each with fresh names for every test."""

from __future__ import annotations

import dataclasses
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from i3tasks.broker import provisioning
from i3tasks.broker.publisher import Outgoing, Publisher, get_publisher
from i3tasks.conf import Config, QueueNames, get_config
from i3tasks.emulator import EmulatorProcess
from i3tasks.exceptions import BrokerError
from i3tasks.types import I3TasksSettings
from tests.broker.proxy import Proxy
from tests.support.google_emulator import GoogleEmulator

SECONDS = 30.0
"""How long anything may take before a test gives up on it."""

_numbers = itertools.count()


@pytest.fixture(scope="session", params=["embedded", pytest.param("google", marks=pytest.mark.google)])
def kind(request: pytest.FixtureRequest) -> str:
    """Which emulator."""
    return str(request.param)


@pytest.fixture(scope="session")
def emulator(kind: str) -> Iterator[EmulatorProcess | GoogleEmulator]:
    """A running emulator of that kind."""
    with new_emulator(kind) as emulator:
        yield emulator


def new_emulator(kind: str) -> EmulatorProcess | GoogleEmulator:
    """An emulator to be started."""
    if kind == "embedded":
        return EmulatorProcess()
    if not GoogleEmulator.available():
        if os.environ.get("CI"):
            pytest.fail("Google's Pub/Sub emulator is missing")
        pytest.skip("Google's Pub/Sub emulator is missing")
    return GoogleEmulator()


class Broker:
    """What a test sees of the broker: settings that point to it, and a way around our code to look at it."""

    def __init__(self, settings: Any, host: str) -> None:
        self._settings = settings
        self.point_to(host)
        self.configure()

    def point_to(self, host: str) -> None:
        """Use the broker at this address."""
        self._settings.PUBSUB_CONFIG = {"EMULATOR": True, "HOST": host, "PROJECT_ID": "test"}

    def configure(self, **changes: Any) -> Config:
        """Settings with a namespace that was never used before, and these changes."""
        values: dict[str, Any] = {
            "namespace": f"t{os.getpid()}-{next(_numbers)}",
            "ack_deadline_seconds": 10,
            **changes,
        }
        self._settings.I3TASKS = I3TasksSettings(**values)
        return self.config

    def change(self, **changes: Any) -> Config:
        """The same settings but for these."""
        self._settings.I3TASKS = dataclasses.replace(self.config.settings, **changes)
        return self.config

    @property
    def config(self) -> Config:
        return get_config()

    @property
    def queue(self) -> QueueNames:
        """The default queue, which is a PullQueue."""
        return self.config.queue(None)

    def ensure(self) -> list[provisioning.Change]:
        return provisioning.ensure(self.config)

    def publish(self, *data: bytes) -> Outcomes:
        """Publish through our publisher."""
        return publish_all(get_publisher(), self.queue.topic, data)

    def pull(self, count: int, subscription: str | None = None) -> list[bytes]:
        """Pull and ack `count` messages, past our receiver."""
        with self.admin() as admin:
            name = subscription or self.queue.subscription
            deadline = time.monotonic() + SECONDS
            data: list[bytes] = []
            while len(data) < count and time.monotonic() < deadline:
                data += admin.pull(name, count - len(data))
            return data

    def admin(self) -> Admin:
        return Admin(self.config)


class Admin:
    """Google's own clients."""

    def __init__(self, config: Config) -> None:
        from i3tasks.broker import clients

        self.publisher, self.subscriber = clients.make_admin(config.pubsub)

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *error: object) -> None:
        from i3tasks.broker import clients

        clients.close(self.publisher)
        clients.close(self.subscriber)

    def pull(self, subscription: str, count: int) -> list[bytes]:
        from google.api_core import exceptions as api

        try:
            answer = self.subscriber.pull(subscription=subscription, max_messages=count, retry=None, timeout=5)
        except api.DeadlineExceeded:
            return []
        ids = [message.ack_id for message in answer.received_messages]
        if ids:
            self.subscriber.acknowledge(subscription=subscription, ack_ids=ids)
        return [message.message.data for message in answer.received_messages]


class Outcomes:
    """Collects what `on_done` is called with."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._queue: queue.SimpleQueue[tuple[int, BrokerError | None]] = queue.SimpleQueue()
        self.threads: set[str] = set()

    def on_done(self, index: int) -> Callable[[Sequence[Outgoing], BrokerError | None], None]:
        def done(messages: Sequence[Outgoing], error: BrokerError | None) -> None:
            self.threads.add(threading.current_thread().name)
            self._queue.put((index, error))

        return done

    def wait(self) -> list[BrokerError | None]:
        """One outcome per message, in the order in which they were published."""
        outcomes = dict(self._queue.get(timeout=SECONDS) for _ in range(self._count))
        assert len(outcomes) == self._count, "on_done was called twice for a message"
        return [outcomes[index] for index in range(self._count)]


def publish_all(publisher: Publisher, topic: str, data: tuple[bytes, ...]) -> Outcomes:
    """Queue these messages."""
    outcomes = Outcomes(len(data))
    for index, one in enumerate(data):
        attributes = {"encoding": "utf-8"} if one else {}
        assert publisher.publish(Outgoing(topic, one, attributes, outcomes.on_done(index)))
    return outcomes


@pytest.fixture
def broker(emulator: EmulatorProcess | GoogleEmulator, settings: Any) -> Iterator[Broker]:
    """Settings for the emulator, with names of their own, and the process's publisher put away at the end."""
    yield Broker(settings, emulator.host_port)
    get_publisher().flush(SECONDS)
    get_publisher().retire()


@pytest.fixture
def wire(emulator: EmulatorProcess | GoogleEmulator, broker: Broker) -> Iterator[Proxy]:
    """Between us and the emulator, to be cut."""
    with Proxy(emulator.host_port) as proxy:
        broker.point_to(proxy.host_port)
        yield proxy


class Acks:
    """What the broker confirmed to have been acked: data is unknown here, so acks are only counted."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = threading.Condition()

    def add(self, count: int) -> None:
        with self._changed:
            self.count += count
            self._changed.notify_all()


@pytest.fixture
def acks(monkeypatch: pytest.MonkeyPatch) -> Acks:
    """Counts acks that the broker has answered."""
    from i3tasks.broker.streaming import _Subscriber

    acks = Acks()
    acknowledge = _Subscriber.acknowledge

    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = acknowledge(self, *args, **kwargs)
        acks.add(len(kwargs["ack_ids"]))
        return answer

    monkeypatch.setattr(_Subscriber, "acknowledge", counting)
    return acks


class Events:
    """What was emitted."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._events: list[tuple[str, dict[str, Any]]] = []

    def emit(self, event: str, **facts: Any) -> None:
        with self._changed:
            self._events.append((event, facts))
            self._changed.notify_all()

    def named(self, name: str) -> list[dict[str, Any]]:
        with self._changed:
            return [facts for event, facts in self._events if event == name]

    def wait_for(self, name: str, what: str | None = None) -> dict[str, Any]:
        """The first event of this name, and from this part of the broker if one is given."""

        def found() -> list[dict[str, Any]]:
            return [facts for event, facts in self._events if event == name and what in (None, facts.get("what"))]

        with self._changed:
            assert self._changed.wait_for(found, SECONDS), name
            return found()[0]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    """Records events instead of logging them."""
    events = Events()
    for module in ("circuit", "stream_health", "provisioning", "publisher", "receiver"):
        monkeypatch.setattr(f"i3tasks.broker.{module}.emit", events.emit)
    return events


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up on requests at once: outages in tests are not blips."""
    from i3tasks.broker import clients, sending
    from i3tasks.broker import topic_admin as admin

    monkeypatch.setattr(sending, "_PATIENT", clients.patience(0))
    monkeypatch.setattr(admin, "_PATIENCE", clients.patience(0))


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that gives no signal."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS:g} s: {what}"
        time.sleep(0.01)

"""One suite for both emulators, through Google's own clients."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import grpc
import pytest

from tests.broker.contract.differences import DIFFERENCES, SOMETIMES

SECONDS = 20.0
"""How long an answer may take before a test gives up."""

SECONDS_IN_VAIN = 3.0
"""The same where Google's emulator is known not to give it."""

_numbers = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "differs(name): a case of DIFFERENCES, expected to fail on Google's emulator")


@pytest.fixture(autouse=True)
def _known_difference(request: pytest.FixtureRequest, kind: str) -> None:
    marker = request.node.get_closest_marker("differs")
    if marker is not None and kind == "google":
        name = marker.args[0]
        request.applymarker(pytest.mark.xfail(reason=DIFFERENCES[name], strict=name not in SOMETIMES))


@pytest.fixture(scope="session")
def clients(emulator: Any) -> Iterator[Clients]:
    """Google's clients, connected to the emulator under test."""
    clients = Clients(emulator.host_port)
    yield clients
    clients.close()


@pytest.fixture
def pubsub(clients: Clients, request: pytest.FixtureRequest, kind: str) -> Iterator[World]:
    """A world of its own for the test, on the shared emulator."""
    in_vain = kind == "google" and request.node.get_closest_marker("differs") is not None
    world = World(clients, SECONDS_IN_VAIN if in_vain else SECONDS, loses_to_closed_streams=kind == "google")
    yield world
    world.close()


class Clients:
    """The high-level clients; they pass everything they don't add to on to the generated (GAPIC) ones."""

    def __init__(self, host_port: str) -> None:
        from google.cloud import pubsub_v1
        from google.pubsub_v1 import PublisherClient
        from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
        from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

        # As on the real service: under PUBSUB_EMULATOR_HOST the clients can't receive more than 4 MB.
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channels = [grpc.insecure_channel(host_port, options) for _ in range(2)]
        self.publisher = pubsub_v1.PublisherClient(
            batch_settings=pubsub_v1.types.BatchSettings(max_latency=0.001),
            publisher_options=pubsub_v1.types.PublisherOptions(enable_message_ordering=True),
            transport=PublisherGrpcTransport(channel=self._channels[0]),
        )
        self.subscriber = pubsub_v1.SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channels[1]))
        self.generated = PublisherClient  # its `publish` is the RPC, the high-level one gathers batches

    def close(self) -> None:
        self.publisher.stop()
        for channel in self._channels:
            channel.close()


class Got(NamedTuple):
    """A message as a test wants to see it."""

    data: bytes
    ack_id: str
    attempt: int
    message: Any


def _got(response: Any) -> list[Got]:
    """The messages in a PullResponse or StreamingPullResponse."""
    received = response.received_messages
    return [Got(each.message.data, each.ack_id, each.delivery_attempt, each.message) for each in received]


class World:
    """A project of its own, and the things tests do in it."""

    def __init__(self, clients: Clients, patience: float, *, loses_to_closed_streams: bool) -> None:
        self.publisher = clients.publisher
        self.subscriber = clients.subscriber
        self.generated = clients.generated
        self.project = f"contract-{os.getpid()}-{next(_numbers)}"
        self.patience = patience
        self._marker_seconds = patience / 5 if loses_to_closed_streams else patience
        self._closing: list[Callable[[], object]] = []

    def close(self) -> None:
        for close in reversed(self._closing):
            close()

    # -- names

    def topic_name(self, name: str) -> str:
        return f"projects/{self.project}/topics/{name}"

    def subscription_name(self, name: str) -> str:
        return f"projects/{self.project}/subscriptions/{name}"

    # -- making things

    def topic(self, name: str = "topic", **fields: Any) -> str:
        path = self.topic_name(name)
        self.publisher.create_topic(request={"name": path, **fields})
        return path

    def subscription(self, topic: str, name: str = "sub", **fields: Any) -> str:
        path = self.subscription_name(name)
        self.subscriber.create_subscription(request={"name": path, "topic": topic, **fields})
        return path

    def pair(self, **fields: Any) -> tuple[str, str]:
        """A topic and a subscription to it."""
        topic = self.topic()
        return topic, self.subscription(topic, **fields)

    def publish(self, topic: str, *data: bytes, key: str = "", **attributes: str) -> list[str]:
        """Publish one request with all messages, through the generated client."""
        messages = [{"data": each, "attributes": attributes, "ordering_key": key} for each in data]
        return list(self.generated.publish(self.publisher, topic=topic, messages=messages).message_ids)

    # -- receiving by Pull

    def pull(self, subscription: str, count: int = 10) -> list[Got]:
        """What is there now, up to `count` messages."""
        answer = self.subscriber.pull(
            request={"subscription": subscription, "max_messages": count, "return_immediately": True}, timeout=10
        )
        return [
            Got(each.message.data, each.ack_id, each.delivery_attempt, each.message)
            for each in answer.received_messages
        ]

    def pulled(self, subscription: str, count: int = 1, *, ack: bool = False) -> list[Got]:
        """Exactly `count` messages, or a failed test."""
        got: list[Got] = []
        deadline = time.monotonic() + self.patience
        while len(got) < count and time.monotonic() < deadline:
            got += self._pull_waiting(subscription, count - len(got), deadline)
        assert len(got) == count, f"got {[each.data for each in got]}"
        if ack:
            self.ack(subscription, got)
        return got

    def _pull_waiting(self, subscription: str, count: int, deadline: float) -> list[Got]:
        """Let the server wait for messages; both emulators may answer with none."""
        from google.api_core.exceptions import DeadlineExceeded

        seconds = max(deadline - time.monotonic(), 0.6)
        try:
            answer = self.subscriber.pull(subscription=subscription, max_messages=count, timeout=seconds, retry=None)
        except DeadlineExceeded:
            return []
        return [
            Got(each.message.data, each.ack_id, each.delivery_attempt, each.message)
            for each in answer.received_messages
        ]

    def ack(self, subscription: str, got: Iterable[Got]) -> None:
        self.subscriber.acknowledge(subscription=subscription, ack_ids=[each.ack_id for each in got])

    def modify(self, subscription: str, got: Iterable[Got], seconds: int) -> None:
        ack_ids = [each.ack_id for each in got]
        self.subscriber.modify_ack_deadline(subscription=subscription, ack_ids=ack_ids, ack_deadline_seconds=seconds)

    def nack(self, subscription: str, got: Iterable[Got]) -> None:
        self.modify(subscription, got, 0)

    def nothing_more(self, subscription: str, topic: str) -> None:
        """A message published now is the next one: what should not come has not come before it.

        On Google's emulator again, if it does not come: it gives some messages to streams that were closed just before.
        """
        got: list[Got] = []
        deadline = time.monotonic() + self.patience
        while not got and time.monotonic() < deadline:
            self.publish(topic, b"the last", kind="last")
            again = time.monotonic() + self._marker_seconds
            while not got and time.monotonic() < again:
                got = self._pull_waiting(subscription, 1, again)
        assert [each.data for each in got] == [b"the last"]
        self.ack(subscription, got)

    # -- receiving by StreamingPull

    def stream(self, subscription: str, **first: Any) -> Stream:
        """A raw stream."""
        stream = Stream(self.subscriber, subscription, self.patience, **first)
        self._closing.append(stream.close)
        return stream

    def first_of(self, streams: list[Stream]) -> Stream:
        """The first of the streams that gets a message; the message stays in its inbox."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            for stream in streams:
                if stream.has_messages(0.01):
                    return stream
        raise AssertionError("no stream got a message")

    def subscribe(self, subscription: str, callback: Callable[[Any], None], **options: Any) -> Future[Any]:
        """The high-level client's subscriber."""
        future = self.subscriber.subscribe(subscription, callback, **options)
        self._closing.append(lambda: _cancelled(future))
        return future

    def collector(self, count: int) -> tuple[list[Any], Countdown]:
        """A list for callbacks to append to, and what they call once for each of `count` messages."""
        return [], Countdown(count)

    def await_collector(self, done: Countdown) -> None:
        """Until the callbacks were called often enough."""
        assert done.event.wait(self.patience), f"{done.left} are missing"

    def in_background(self, function: Callable[[], Any]) -> Future[Any]:
        """Call the function in a thread."""
        executor = ThreadPoolExecutor(1)
        self._closing.append(executor.shutdown)
        return executor.submit(function)

    def endpoint(self, *statuses: int) -> Endpoint:
        """An HTTP server to push to; it answers with these statuses, and then with 200."""
        endpoint = Endpoint(statuses, self.patience)
        self._closing.append(endpoint.close)
        return endpoint


class Countdown:
    """Counts calls down to zero."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.event = threading.Event()
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self.left -= 1
            if self.left == 0:
                self.event.set()


def _cancelled(future: Any) -> None:
    future.cancel()
    future.result(timeout=SECONDS)


class Stream:
    """A StreamingPull through the generated client: what it sends, and an inbox of what comes back."""

    def __init__(self, subscriber: Any, subscription: str, patience: float, **first: Any) -> None:
        self._patience = patience
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._set_aside: list[Got] = []
        self.send(subscription=subscription, **{"stream_ack_deadline_seconds": 10, **first})
        self._call = subscriber.streaming_pull(requests=iter(self._requests.get, None), timeout=60, retry=None)
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, **fields: Any) -> None:
        from google.pubsub_v1 import types

        self._requests.put(types.StreamingPullRequest(**fields))

    def response(self) -> Any:
        """The next response; raises the error that ended the stream."""
        response = self._inbox.get(timeout=self._patience)
        if isinstance(response, Exception):
            raise response
        return response

    def messages(self, count: int) -> list[Got]:
        """Exactly `count` messages."""
        got, self._set_aside = self._set_aside, []
        while len(got) < count:
            got += _got(self.response())
        assert len(got) == count, f"got {[each.data for each in got]}"
        return got

    def has_messages(self, seconds: float) -> bool:
        """Whether `messages` has some to give, looking for so many seconds."""
        try:
            self._set_aside += _got(self._inbox.get(timeout=seconds))
        except queue.Empty:
            return False
        return bool(self._set_aside)

    def error(self) -> Exception:
        """The error that ends the stream."""
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            response = self._inbox.get(timeout=self._patience)
            if isinstance(response, Exception):
                return response
        raise AssertionError("the stream goes on")

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()

    def _read(self) -> None:
        try:
            for response in self._call:
                self._inbox.put(response)
        except Exception as error:
            self._inbox.put(error)


class Push(NamedTuple):
    """A request that an endpoint got."""

    path: str
    headers: dict[str, str]
    body: bytes


class Endpoint:
    """Records pushes."""

    def __init__(self, statuses: Iterable[int], patience: float) -> None:
        self._patience = patience
        answers = itertools.chain(statuses, itertools.repeat(200))
        inbox = self._inbox = queue.SimpleQueue[Push]()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                inbox.put(Push(self.path, {key.lower(): value for key, value in self.headers.items()}, body))
                self.send_response(next(answers))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/push?token=1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def pushes(self, count: int) -> list[Push]:
        """The next `count` requests."""
        return [self._inbox.get(timeout=self._patience) for _ in range(count)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

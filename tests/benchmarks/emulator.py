"""The embedded emulator, with its data on disk, against Google's, in one run:

    python -m tests.benchmarks.emulator

Prints both emulators' numbers and their ratios, and exits with 1 where a target is missed. Absolute numbers depend on
the machine; only the ratios are worth quoting.
"""

from __future__ import annotations

import argparse
import itertools
import queue
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.cloud import pubsub_v1
from google.pubsub_v1 import PublisherClient as GeneratedPublisher
from google.pubsub_v1 import types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from i3tasks.emulator import EmulatorProcess
from tests.support.google_emulator import GoogleEmulator

Emulator = EmulatorProcess | GoogleEmulator


class Measure(NamedTuple):
    """What is measured, and how ours must compare with Google's."""

    name: str
    unit: str
    at_least: float | None = None  # ours / Google's
    at_most: float | None = None

    def holds(self, ratio: float) -> bool:
        return (self.at_least is None or ratio >= self.at_least) and (self.at_most is None or ratio <= self.at_most)


MEASURES = {
    "start": Measure("start until it takes connections", "s", at_most=0.5),
    "stream": Measure("receiving, one raw stream", "messages/s", at_least=4),
    "client": Measure("receiving, one high-level client", "messages/s", at_least=4),
    "latency": Measure("publish to handler, median", "ms", at_most=0.25),
    "memory": Measure("resident memory afterwards", "MB", at_most=0.5),
}


class Clients:
    """Google's clients on one emulator, and a topic with subscriptions of their own for each measure."""

    def __init__(self, host_port: str) -> None:
        self._channels = [grpc.insecure_channel(host_port) for _ in range(2)]
        self.publisher = pubsub_v1.PublisherClient(transport=PublisherGrpcTransport(channel=self._channels[0]))
        self.subscriber = pubsub_v1.SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channels[1]))

    def pair(self, name: str) -> tuple[str, str]:
        topic, subscription = f"projects/bench/topics/{name}", f"projects/bench/subscriptions/{name}"
        self.publisher.create_topic(name=topic)
        self.subscriber.create_subscription(name=subscription, topic=topic)
        return topic, subscription

    def fill(self, topic: str, count: int) -> None:
        rpc = self._channels[0].unary_unary("/google.pubsub.v1.Publisher/Publish")
        message = types.PubsubMessage(data=b"x" * 200)
        for size in itertools.repeat(500, count // 500):
            rpc(
                types.PublishRequest.serialize(types.PublishRequest(topic=topic, messages=[message] * size)), timeout=60
            )

    def close(self) -> None:
        for channel in self._channels:
            channel.close()


def measure_stream(clients: Clients, count: int) -> float:
    """Messages a second from a full subscription over one StreamingPull, acked over the stream itself."""
    topic, subscription = clients.pair("stream")
    clients.fill(topic, count)
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    requests.put(types.StreamingPullRequest(subscription=subscription, stream_ack_deadline_seconds=60))
    started, received = time.perf_counter(), 0
    call = clients.subscriber.streaming_pull(requests=iter(requests.get, None), timeout=120, retry=None)
    for response in call:
        ack_ids = [message.ack_id for message in response.received_messages]
        received += len(ack_ids)
        if ack_ids:
            requests.put(types.StreamingPullRequest(ack_ids=ack_ids))
        if received >= count:
            break
    seconds = time.perf_counter() - started
    requests.put(None)
    call.cancel()
    return count / seconds


def measure_client(clients: Clients, count: int) -> float:
    """Messages a second from a full subscription through the high-level client, each one acked."""
    topic, subscription = clients.pair("client")
    clients.fill(topic, count)
    left, done = itertools.count(count - 1, -1), threading.Event()

    def receive(message: Any) -> None:
        message.ack()
        if next(left) == 0:
            done.set()

    started = time.perf_counter()
    future = clients.subscriber.subscribe(
        subscription, receive, flow_control=pubsub_v1.types.FlowControl(max_messages=5_000)
    )
    done.wait(120)
    seconds = time.perf_counter() - started
    future.cancel()
    future.result()
    return count / seconds


def measure_latency(clients: Clients, count: int) -> float:
    """Median milliseconds from the call of the generated client's publish to the high-level client's callback."""
    topic, subscription = clients.pair("latency")
    arrivals: queue.SimpleQueue[float] = queue.SimpleQueue()

    def receive(message: Any) -> None:
        arrivals.put(time.perf_counter())
        message.ack()

    future = clients.subscriber.subscribe(subscription, receive)
    delays = []
    for _ in range(count):
        sent = time.perf_counter()
        GeneratedPublisher.publish(clients.publisher, topic=topic, messages=[types.PubsubMessage(data=b"x" * 200)])
        delays.append(arrivals.get(timeout=30) - sent)
    future.cancel()
    future.result()
    return statistics.median(delays[count // 10 :]) * 1_000


def measure_memory(emulator: Emulator) -> float:
    """Resident megabytes. Google's launcher becomes the Java process, so its id is the right one."""
    output = subprocess.run(["ps", "-o", "rss=", "-p", str(emulator.pid)], capture_output=True, text=True, check=True)
    return int(output.stdout) / 1_024


def measure_start(new: Callable[[], Emulator], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        with new():
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measure(new: Callable[[], Emulator], *, messages: int, starts: int) -> dict[str, float]:
    """All measures of one emulator."""
    found = {"start": measure_start(new, starts)}
    with new() as emulator:
        clients = Clients(emulator.host_port)
        found["latency"] = measure_latency(clients, 100)
        found["stream"] = measure_stream(clients, messages)
        found["client"] = measure_client(clients, messages)
        found["memory"] = measure_memory(emulator)
        clients.close()
    return found


def report(ours: dict[str, float], googles: dict[str, float]) -> bool:
    """Print the table. Whether all targets hold."""
    print(f"{'':36}{'embedded':>12}{'Google':>12}{'ratio':>8}  target")
    fine = True
    for key, measure_ in MEASURES.items():
        ratio = ours[key] / googles[key]
        bound = f">= {measure_.at_least}" if measure_.at_least else f"<= {measure_.at_most}"
        verdict = ("holds" if measure_.holds(ratio) else "MISSED") + f" ({measure_.unit})"
        fine = fine and measure_.holds(ratio)
        print(f"{measure_.name:36}{ours[key]:>12,.2f}{googles[key]:>12,.2f}{ratio:>8.2f}  {bound}: {verdict}")
    return fine


def data_dirs() -> Iterator[Path]:
    """A fresh folder for every start."""
    with tempfile.TemporaryDirectory() as folder:
        for number in itertools.count():
            yield Path(folder) / str(number)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000, help="for each receiving measure")
    parser.add_argument("--starts", type=int, default=5)
    arguments = parser.parse_args()
    if not GoogleEmulator.available():
        print("Google's emulator is not installed; there is nothing to compare with.")
        return 1
    folders = data_dirs()
    sizes = {"messages": arguments.messages, "starts": arguments.starts}
    ours = measure(lambda: EmulatorProcess(next(folders)), **sizes)
    googles = measure(GoogleEmulator, **sizes)
    return 0 if report(ours, googles) else 1


if __name__ == "__main__":
    raise SystemExit(main())

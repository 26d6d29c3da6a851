"""kill -9 of the emulator in the middle of traffic, many times over the same data.

What was confirmed stays: every publish that was answered is delivered, and no message comes back after its ack was
answered. A publish or an ack that the kill left without an answer may have happened or not.

I3TASKS_KILL_ROUNDS sets the number of rounds (default 8).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.pubsub_v1 import types

from i3tasks.emulator import EmulatorProcess, Seed

ROUNDS = int(os.environ.get("I3TASKS_KILL_ROUNDS", "8"))
TOPIC = "projects/kill/topics/topic"
SUBSCRIPTIONS = {
    "plain": {},
    "ordered": {"enable_message_ordering": True},
    "exactly-once": {"enable_exactly_once_delivery": True},
}
SEED = Seed(
    project="kill",
    topics=["topic"],
    subscriptions=[{"name": name, "topic": "topic", **fields} for name, fields in SUBSCRIPTIONS.items()],
)


class Ledger:
    """What the clients were told, over all rounds."""

    def __init__(self) -> None:
        self.published: set[str] = set()
        self.delivered: dict[str, set[str]] = {name: set() for name in SUBSCRIPTIONS}
        self.acked: dict[str, set[str]] = {name: set() for name in SUBSCRIPTIONS}
        self.resurrected: list[tuple[str, str]] = []

    def deliver(self, name: str, message_id: str) -> None:
        self.delivered[name].add(message_id)
        if message_id in self.acked[name]:
            self.resurrected.append((name, message_id))


class Client:
    """The few RPCs that the test needs, on one channel."""

    def __init__(self, host_port: str) -> None:
        self._channel = grpc.aio.insecure_channel(host_port)

    def call(self, service: str, method: str, request: Any) -> Awaitable[Any]:
        answer_type = {"Publish": types.PublishResponse, "Pull": types.PullResponse}.get(method)
        rpc: Callable[..., Awaitable[Any]] = self._channel.unary_unary(
            f"/google.pubsub.v1.{service}/{method}",
            request_serializer=type(request).serialize,
            response_deserializer=answer_type.deserialize if answer_type else lambda raw: raw,
        )
        return rpc(request, timeout=20)

    async def publish(self, ledger: Ledger) -> None:
        messages = [types.PubsubMessage(data=b"x" * 100, ordering_key=key) for key in ("a", "b", "", "")]
        answer = await self.call("Publisher", "Publish", types.PublishRequest(topic=TOPIC, messages=messages))
        ledger.published.update(answer.message_ids)

    async def receive(self, ledger: Ledger, name: str) -> int:
        """Pull what there is, and ack it."""
        subscription = f"projects/kill/subscriptions/{name}"
        pull = types.PullRequest(subscription=subscription, max_messages=20, return_immediately=True)
        received = (await self.call("Subscriber", "Pull", pull)).received_messages
        if received:
            for each in received:
                ledger.deliver(name, each.message.message_id)
            ack_ids = [each.ack_id for each in received]
            acknowledge = types.AcknowledgeRequest(subscription=subscription, ack_ids=ack_ids)
            await self.call("Subscriber", "Acknowledge", acknowledge)
            ledger.acked[name].update(each.message.message_id for each in received)
        return len(received)

    async def close(self) -> None:
        await self._channel.close()


async def _forever(action: Callable[[], Awaitable[Any]], dead: asyncio.Event) -> None:
    """Repeat the action until the emulator is dead. It may die at any point of it."""
    while not dead.is_set():
        try:
            await action()
        except grpc.RpcError:
            return


async def _traffic_until_kill(emulator: EmulatorProcess, ledger: Ledger, operations: int) -> None:
    client, dead, count = Client(emulator.host_port), asyncio.Event(), 0

    async def publish_and_count() -> None:
        nonlocal count
        await client.publish(ledger)
        count += 1
        if count == operations:
            await asyncio.to_thread(emulator.kill)
            dead.set()

    await asyncio.gather(
        *(_forever(publish_and_count, dead) for _ in range(8)),
        *(_forever(lambda name=name: client.receive(ledger, name), dead) for name in SUBSCRIPTIONS for _ in range(2)),
    )
    await client.close()


async def _drain(emulator: EmulatorProcess, ledger: Ledger) -> None:
    client = Client(emulator.host_port)
    for name in SUBSCRIPTIONS:
        while await client.receive(ledger, name):
            pass
    await client.close()


@pytest.mark.timeout(60 + 10 * ROUNDS)
async def test_what_was_confirmed_survives_kill_9(tmp_path: Path) -> None:
    ledger = Ledger()
    for _ in range(ROUNDS):
        emulator = EmulatorProcess(tmp_path / "data", seed=SEED).start()
        await _traffic_until_kill(emulator, ledger, operations=random.randint(20, 150))
    with EmulatorProcess(tmp_path / "data") as emulator:
        await _drain(emulator, ledger)
    assert len(ledger.published) > 10 * ROUNDS
    for name in SUBSCRIPTIONS:
        assert not ledger.published - ledger.delivered[name], f"{name}: confirmed publishes are delivered"
    assert not ledger.resurrected

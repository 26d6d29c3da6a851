"""The workers of `raw`: python -m tests.benchmarks.contestants.tasks.raw VARIANT KIND"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.cloud import pubsub_v1
from google.cloud.pubsub_v1.subscriber.scheduler import ThreadScheduler

from ...harness.bodies import BODIES
from ...harness.measure import Measure
from ..raw import Contestant

MOST_OUTSTANDING = 1000
types = pubsub_v1.types


def stream(contestant: Contestant, kind: str) -> None:
    """The high-level client: a callback in a thread for each message."""
    body = BODIES[kind]

    def callback(message: Any) -> None:
        body(int(message.data))
        message.ack()

    scheduler = ThreadScheduler(ThreadPoolExecutor(100 if kind.startswith("io") else 10))
    limits = types.FlowControl(max_messages=MOST_OUTSTANDING)
    client = contestant.subscriber
    client.subscribe(contestant.subscription, callback, flow_control=limits, scheduler=scheduler).result()


async def aio(contestant: Contestant, kind: str) -> None:
    """One StreamingPull of grpc.aio, without proto-plus; acknowledged every few milliseconds."""
    body = BODIES[kind]
    request, acknowledge = types.StreamingPullRequest.pb(), types.AcknowledgeRequest.pb()
    done: list[str] = []
    running: set[asyncio.Task[None]] = set()

    async def run(message: Any) -> None:
        await body(int(message.message.data))
        done.append(message.ack_id)

    async with grpc.aio.insecure_channel(contestant.measure.emulator) as channel:
        pull = channel.stream_stream(
            "/google.pubsub.v1.Subscriber/StreamingPull",
            request_serializer=request.SerializeToString,
            response_deserializer=types.StreamingPullResponse.pb().FromString,
        )
        ack = channel.unary_unary(
            "/google.pubsub.v1.Subscriber/Acknowledge", request_serializer=acknowledge.SerializeToString
        )

        async def acknowledge_all() -> None:
            while True:
                await asyncio.sleep(0.005)
                ids, done[:] = done[:], []
                for start in range(0, len(ids), 1000):
                    await ack(acknowledge(subscription=contestant.subscription, ack_ids=ids[start : start + 1000]))

        acking = asyncio.create_task(acknowledge_all())
        call = pull()
        await call.write(
            request(
                subscription=contestant.subscription,
                stream_ack_deadline_seconds=60,
                max_outstanding_messages=MOST_OUTSTANDING,
                max_outstanding_bytes=10**8,
            )
        )
        while not acking.done():
            for message in (await call.read()).received_messages:
                task = asyncio.create_task(run(message))
                running.add(task)
                task.add_done_callback(running.discard)


async def push(contestant: Contestant, kind: str) -> None:
    """A bare HTTP server."""
    body = BODIES[kind]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                message = json.loads(await reader.readexactly(size))["message"]
                await body(int(base64.b64decode(message["data"])))
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", contestant.measure.http_port)
    await server.serve_forever()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """A bare ASGI application."""
    content, more = b"", True
    while more:
        event = await receive()
        content, more = content + event["body"], event.get("more_body", False)
    await BODIES[Measure.current().kind](int(base64.b64decode(json.loads(content)["message"]["data"])))
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


COROUTINES: dict[str, Callable[[Contestant, str], Coroutine[Any, Any, None]]] = {"aio": aio, "push": push}

if __name__ == "__main__":
    variant, kind = sys.argv[1:]
    contestant = Contestant(Measure.current())
    if variant == "stream":
        stream(contestant, kind)
    else:
        asyncio.run(COROUTINES[variant](contestant, kind))

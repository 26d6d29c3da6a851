"""A client that pushes as the service does, over connections that stay open, so many requests at a time."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .contestant import Contestant

MOST_PULLED = 1000


@dataclass(slots=True)
class Answers:
    """The answers to a number of pushes."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    @property
    def accepted(self) -> int:
        """How many acknowledge their message."""
        return sum(status in (200, 201, 202, 204) for status in self.statuses)


def taken(contestant: Contestant, count: int, deadline: float) -> list[bytes]:
    """The bodies of so many pushes, from messages that are pulled and acknowledged in the contestant's place."""
    client, subscription, found = contestant.subscriber, contestant.subscription, []
    while len(found) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(found)} of {count} messages could be pulled.")
        request = {"subscription": subscription, "max_messages": min(MOST_PULLED, count - len(found))}
        received = client.pull(request=request, timeout=30).received_messages
        if received:
            client.acknowledge(subscription=subscription, ack_ids=[item.ack_id for item in received])
            found += [_body(item.message, subscription) for item in received]
    return found


def push(port: int, path: str, bodies: Sequence[bytes], at_once: int) -> Answers:
    """POST the bodies, so many at a time, and wait for the answers."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: CloudPubSub-Google\r\nAccept: */*\r\n"
    head += "Content-Type: application/json\r\nContent-Length: "
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    return asyncio.run(_push(port, requests, at_once))


async def _push(port: int, requests: Sequence[bytes], at_once: int) -> Answers:
    loop, answers, left = asyncio.get_running_loop(), Answers(), iter(requests)
    ended = [loop.create_future() for _ in range(at_once)]
    began = time.perf_counter()
    for future in ended:
        await loop.create_connection(lambda end=future: _Connection(left, answers, end), "127.0.0.1", port)
    await asyncio.gather(*ended)
    answers.seconds = time.perf_counter() - began
    return answers


class _Connection(asyncio.Protocol):
    """Sends the next request when it has the answer to the one before."""

    def __init__(self, left: Iterator[bytes], answers: Answers, end: asyncio.Future[None]) -> None:
        self._left = left
        self._answers = answers
        self._end = end
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, rest = self._received.partition(b"\r\n\r\n")
        if blank and _is_whole(head.lower(), rest):
            self._answers.latencies_ms.append((time.perf_counter() - self._sent) * 1e3)
            self._answers.statuses.append(int(head.split(b" ", 2)[1]))
            self._received = b""
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._end.done():
            self._end.set_exception(error or ConnectionError("The server closed the connection."))

    def _send(self) -> None:
        request = next(self._left, None)
        if request is None:
            self._end.set_result(None)
            self._transport.close()
        else:
            self._sent = time.perf_counter()
            self._transport.write(request)


def _is_whole(head: bytes, body: bytes) -> bool:
    if b"transfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0] or b"0")


def _body(message: Any, subscription: str) -> bytes:
    published = message.publish_time.isoformat()
    content = {
        "attributes": dict(message.attributes),
        "data": base64.b64encode(message.data).decode(),
        "messageId": message.message_id,
        "message_id": message.message_id,
        "publishTime": published,
        "publish_time": published,
    }
    return json.dumps({"message": content, "subscription": subscription}).encode()

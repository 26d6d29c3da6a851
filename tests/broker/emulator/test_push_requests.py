"""What a publisher may write into a push's headers, and what the certificates' server answers to bad requests."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from i3tasks.emulator import wire
from i3tasks.emulator.messages import LeasedMessage, Message
from i3tasks.emulator.push.oidc import TokenSigner, serve_certificates
from i3tasks.emulator.push.rendering import render

OURS = [
    "X-Goog-Pubsub-Message-Id",
    "x_goog_pubsub_message_id",
    "X-GOOG-PUBSUB-SUBSCRIPTION-NAME",
    "X-Goog-Pubsub-Delivery-Attempt",
    "Authorization",
    "content_length",
    "User-Agent",
]


def headers(attributes: Mapping[str, str]) -> dict[str, str]:
    config = wire.Subscription(name="projects/p/subscriptions/s")
    config.push_config.no_wrapper.write_metadata = True
    stored = wire.PubsubMessage(data=b"data", attributes=attributes, message_id="7")
    message = LeasedMessage(Message(7, 0.0, stored.SerializeToString()), 1, 1)
    subscription: Any = type("", (), {"name": config.name, "config": config, "counts_attempts": False})
    return render(subscription, message)[0]


@pytest.mark.parametrize("name", OURS)
def test_no_attribute_adds_a_second_header_of_ours(name: str) -> None:
    sent = headers({name: "forged", "color": "red"})
    assert "forged" not in sent.values()
    assert sent["color"] == "red"
    assert [value for key, value in sent.items() if key.lower() == "x-goog-pubsub-message-id"] == ["7"]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"a" * 100_000, b"431"),
        (b"GET /nothing HTTP/1.1\r\n\r\n", b"404"),
        (b"nothing\r\n\r\n", b"404"),
        (b"GET /oauth2/v1/certs HTTP/1.1\r\n\r\n", b"200"),
    ],
)
async def test_every_request_is_answered(request_bytes: bytes, status: bytes) -> None:
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    signer = TokenSigner({}, lambda *_: None, lambda: 0.0)
    server = await asyncio.start_server(lambda *ends: serve_certificates(signer, *ends), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        writer.write(request_bytes)
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert errors == []

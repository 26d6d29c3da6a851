"""Clients for the real service are made without the network; an emulator's ignore the environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import exceptions as auth

from i3tasks.broker import clients
from i3tasks.broker.errors import BrokerUnavailable
from i3tasks.broker.sending import Sender
from i3tasks.conf import PubSubConfig


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A service account's key file that no service knows."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "key.json"
    path.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "shop-1",
                "private_key_id": "1",
                "private_key": pem.decode(),
                "client_email": "tasks@shop-1.iam.gserviceaccount.com",
                "client_id": "1",
                "token_uri": "https://127.0.0.1:1/token",
            }
        )
    )
    return path


def test_a_key_file_is_used(key_file: Path) -> None:
    client = clients.make_publisher(PubSubConfig(False, None, "shop-1", str(key_file)))

    assert client.transport.host == "pubsub.googleapis.com:443"
    assert client.transport._credentials.service_account_email == "tasks@shop-1.iam.gserviceaccount.com"
    clients.close(client)


def test_default_credentials_are_used_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def default(**kwargs: Any) -> Any:
        asked.append(kwargs)
        raise auth.DefaultCredentialsError("none here")

    monkeypatch.setattr("google.auth.default", default)

    with pytest.raises(BrokerUnavailable, match="application-default login"):
        Sender(PubSubConfig(False, None, "shop-1", None))
    assert len(asked) == 1


def test_a_key_file_that_is_broken_is_named(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text("{}")

    with pytest.raises(BrokerUnavailable, match=r"key\.json was not accepted"):
        Sender(PubSubConfig(False, None, "shop-1", str(path)))


def test_an_emulators_address_comes_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from google.cloud import pubsub_v1

    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:2")
    targets: list[str] = []
    insecure_channel = clients.grpc.insecure_channel

    def recording(target: str, **kwargs: Any) -> Any:
        targets.append(target)
        return insecure_channel(target, **kwargs)

    monkeypatch.setattr(clients.grpc, "insecure_channel", recording)
    config = PubSubConfig(True, "127.0.0.1:1", "test", None)

    made = [clients.make_publisher(config), clients.make_streaming(pubsub_v1.SubscriberClient, config)]

    assert targets == ["127.0.0.1:1"] * 2
    for client in made:
        clients.close(client)

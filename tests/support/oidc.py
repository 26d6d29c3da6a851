"""An issuer of OIDC tokens in Google's stead: keys of its own, and an endpoint with their certificates."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt

PUSHER = "push@shop.iam.gserviceaccount.com"
PUSH_URL = "https://shop.example.com/i3/tasks-push/"
BEAT_URL = "https://shop.example.com/i3/tasks-beat/"


class Key:
    """A signing key, and the certificate for it."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self._key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        pem = serialization.Encoding.PEM
        self.private = self._key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        self.public = self._key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(pem).decode()

    def sign(self, claims: Any, **header: Any) -> str:
        """A token with these claims, signed with RS256, whatever its header says."""
        signer = crypt.RSASigner.from_string(self.private, key_id=self.key_id)
        head = {"alg": "RS256", "typ": "JWT", "kid": self.key_id, **header}
        signed = f"{segment(head)}.{segment(claims)}"
        return f"{signed}.{encoded(signer.sign(signed.encode()))}"


@lru_cache
def key(key_id: str) -> Key:
    """One key per name and process: making one takes a tenth of a second."""
    return Key(key_id)


def segment(value: Any) -> str:
    return encoded(json.dumps(value).encode())


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    """What Pub/Sub's tokens say. A claim that is `...` is left out; a timedelta is a time from now."""
    now = int(time.time())
    whole = {
        "iss": "https://accounts.google.com",
        "aud": PUSH_URL,
        "email": PUSHER,
        "email_verified": True,
        "azp": "100",
        "sub": "100",
        "iat": now,
        "exp": now + 3_600,
        **changes,
    }
    return {name: _since(now, value) for name, value in whole.items() if value is not ...}


def _since(now: int, value: Any) -> Any:
    return now + value.total_seconds() if isinstance(value, timedelta) else value


class Issuer:
    """The certificate endpoint. `keys` are those that it shows; `answers` replaces the answer; `fetches` counts."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys = [key("k1")]
        self.answer: tuple[int, bytes] | None = None
        self.max_age = 3_600
        self.fetches = 0

    def token(self, **changes: Any) -> str:
        """A good token, but for these claims."""
        return self.keys[-1].sign(claims(**changes))

    def down(self) -> None:
        """Answer 503 from now on."""
        self.answer = (503, b"no")

    def body(self) -> tuple[int, bytes]:
        self.fetches += 1
        return self.answer or (200, json.dumps({one.key_id: one.certificate for one in self.keys}).encode())


@contextmanager
def serving() -> Iterator[Issuer]:
    """An issuer whose endpoint listens on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = issuer.body()
            self.send_response(status)
            self.send_header("Cache-Control", f"public, max-age={issuer.max_age}, must-revalidate")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer = Issuer(f"http://127.0.0.1:{server.server_address[1]}/oauth2/v1/certs")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()

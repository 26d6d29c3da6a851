"""OIDC tokens for pushes, signed with the emulator's own key, and the certificates that check them.

The claims are those of Google's tokens, `iss` included, so the code under test needs only another address for its
certificates. The key is made when it is first needed, and kept with the data.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

ISSUER = "https://accounts.google.com"
LIFETIME = 3_600
_RENEW_BEFORE = 300
_SECRET = "push-token-key"
_MOST_UNREAD = 1_000_000


class SigningKey(NamedTuple):
    """A signing key and its certificate, in PEM."""

    key_id: str
    private: bytes
    certificate: str
    modulus: int
    exponent: int


class TokenSigner:
    """Signs tokens, and gives certificates in the two formats that Google serves.

    `secrets` holds the secrets that an earlier run kept; `keep` writes a new secret to disk.
    """

    def __init__(
        self, secrets: dict[str, bytes], keep: Callable[[str, bytes], None], clock: Callable[[], float]
    ) -> None:
        self._secrets = secrets
        self._keep = keep
        self._clock = clock
        self._key: SigningKey | None = None
        self._tokens: dict[tuple[str, str], tuple[float, str]] = {}

    def token(self, email: str, audience: str) -> str:
        """Give a token for this service account and audience: the same one until it is about to expire."""
        now = self._clock()
        expires, token = self._tokens.get((email, audience), (0.0, ""))
        if expires - _RENEW_BEFORE < now:
            expires, token = now + LIFETIME, self._sign(email, audience, int(now))
            self._tokens[email, audience] = expires, token
        return token

    def certificates(self) -> dict[str, str]:
        """The certificates, key id -> PEM, in the format of https://www.googleapis.com/oauth2/v1/certs."""
        key = self._loaded()
        return {key.key_id: key.certificate}

    def key_set(self) -> dict[str, Any]:
        """The keys as a JSON Web Key Set, in the format of https://www.googleapis.com/oauth2/v3/certs."""
        key = self._loaded()
        numbers = {"n": _base64(key.modulus), "e": _base64(key.exponent)}
        return {"keys": [{"kid": key.key_id, "kty": "RSA", "alg": "RS256", "use": "sig", **numbers}]}

    def _sign(self, email: str, audience: str, now: int) -> str:
        crypt, jwt = _google_auth()
        claims = {
            "aud": audience,
            "azp": email,
            "email": email,
            "email_verified": True,
            "exp": now + LIFETIME,
            "iat": now,
            "iss": ISSUER,
            "sub": email,
        }
        key = self._loaded()
        signer = crypt.RSASigner.from_string(key.private, key_id=key.key_id)
        return str(jwt.encode(signer, claims).decode())

    def _loaded(self) -> SigningKey:
        if self._key is None:
            private = self._secrets.get(_SECRET) or self._new()
            self._key = _read_key(private)
        return self._key

    def _new(self) -> bytes:
        private = _new_key_and_certificate(datetime.fromtimestamp(self._clock(), UTC))
        self._secrets[_SECRET] = private
        self._keep(_SECRET, private)
        return private


def _new_key_and_certificate(now: datetime) -> bytes:
    """Make a private key and a self-signed certificate for it, in PEM, one after the other."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "i3tasks emulator")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3_650))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private + certificate.public_bytes(pem)


def _read_key(kept: bytes) -> SigningKey:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa

    private, _, rest = kept.partition(b"-----BEGIN CERTIFICATE-----")
    pem = b"-----BEGIN CERTIFICATE-----" + rest
    certificate = x509.load_pem_x509_certificate(pem)
    public = certificate.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    numbers = public.public_numbers()
    return SigningKey(certificate.fingerprint(hashes.SHA1()).hex(), private, pem.decode(), numbers.n, numbers.e)


def _base64(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _google_auth() -> tuple[Any, Any]:
    """Import the part of google-auth that signs, which has no type hints."""
    from google.auth import crypt, jwt

    return crypt, jwt


async def serve_certificates(signer: TokenSigner, reader: Any, writer: Any) -> None:
    """Answer one HTTP request: `/oauth2/v1/certs` (PEM) or `/oauth2/v3/certs` (a key set)."""
    pages: dict[bytes, Callable[[], Any]] = {
        b"/oauth2/v1/certs": signer.certificates,
        b"/oauth2/v3/certs": signer.key_set,
    }
    try:
        head = await _head(reader)
        target = head.split(b" ", 2)[1] if head and b" " in head else b""
        page = pages.get(target.split(b"?")[0])
        if head is None:
            status, content = "431 Request Header Fields Too Large", {"error": "the request is too long"}
        else:
            status, content = ("200 OK", page()) if page else ("404 Not Found", {"error": "not found"})
        body = json.dumps(content).encode()
        answer = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nCache-Control: public, max-age=3600\r\n"
        writer.write(f"{answer}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
    except (OSError, EOFError, ValueError):
        pass  # the client went away, or sent no HTTP
    finally:
        writer.close()


async def _head(reader: Any) -> bytes | None:
    """Read a request up to its empty line. Returns None if that is longer than the reader's limit."""
    try:
        head: bytes = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        await reader.read(_MOST_UNREAD)  # closing with unread data would reset the connection before the answer is read
        return None
    return head

"""Fetching certificates: over HTTP in Google's format, or from the embedded emulator over gRPC."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from http.client import HTTPException
from importlib import import_module
from typing import Any
from urllib.request import Request, urlopen

from ...conf import PubSubConfig
from ..loading import importing
from .errors import CertificatesUnavailable

GOOGLES = "https://www.googleapis.com/oauth2/v1/certs"
TIMEOUT_SECONDS = 5.0
LARGEST_ANSWER = 1_000_000
DEFAULT_SECONDS, LEAST_SECONDS, MOST_SECONDS = 3_600.0, 60.0, 86_400.0

_MAX_AGE = re.compile(r"\bmax-age=(\d{1,9})\b")


@dataclass(frozen=True, slots=True)
class Fetched:
    """Certificates, and the time for which they may be used before they are fetched again."""

    certificates: dict[str, str]
    """Key id -> certificate in PEM."""
    seconds: float


def fetch_from(url: str) -> Fetched:
    """Fetch the certificates at an address. Blocks for a few seconds at most. Raises CertificatesUnavailable."""
    request = Request(url, headers={"Accept": "application/json", "User-Agent": "i3tasks"})
    try:
        with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            body, cache_control = answer.read(LARGEST_ANSWER + 1), answer.headers.get("Cache-Control", "")
    except (OSError, HTTPException, ValueError) as error:
        raise CertificatesUnavailable(f"No certificates from {url}: {error}.") from error
    return Fetched(_read(body, url), _seconds(cache_control))


def fetch_from_emulator(pubsub: PubSubConfig) -> Fetched:
    """Fetch the embedded emulator's certificates. Other emulators have none, because they sign no pushes."""
    with importing():
        import grpc

        from .. import clients
    channel = clients.emulator_channel(pubsub)
    try:
        body = channel.unary_unary("/i3tasks.Emulator/Certificates")(b"", timeout=TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return Fetched({}, LEAST_SECONDS)
        raise CertificatesUnavailable(f"No certificates from the emulator at {pubsub.host}: {error.code()}.") from error
    finally:
        channel.close()
    return Fetched(_read(body, f"the emulator at {pubsub.host}"), DEFAULT_SECONDS)


def _read(body: bytes, source: str) -> dict[str, str]:
    """Read the certificates in an answer. Each is parsed here, so that no token is blamed for a broken certificate."""
    verifier = _google_auths_verifier()
    try:
        if len(body) > LARGEST_ANSWER:
            raise ValueError("it is too large")
        found: Any = json.loads(body)
        if not isinstance(found, dict) or not found or not all(isinstance(pem, str) for pem in found.values()):
            raise ValueError("it is no JSON object of key ids and certificates, as Google's /oauth2/v1/certs is")
        for pem in found.values():
            verifier.from_string(pem)
    except (ValueError, RecursionError) as error:
        raise CertificatesUnavailable(f"The answer of {source} has no certificates: {error}.") from error
    return found


def _google_auths_verifier() -> Any:
    """Import the parts of google-auth that check tokens, in this thread rather than on the event loop."""
    with importing():
        import_module("google.auth.jwt")
        return import_module("google.auth.crypt").RSAVerifier


def _seconds(cache_control: str) -> float:
    found = _MAX_AGE.search(cache_control)
    return min(max(float(found[1]), LEAST_SECONDS), MOST_SECONDS) if found else DEFAULT_SECONDS

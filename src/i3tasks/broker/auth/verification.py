"""The verification of push and beat requests that the settings ask for.

With an emulator that signs no requests, they are accepted without verification. The embedded emulator signs the pushes
of a queue that has a `service_account`, and these pushes are verified as in production.
"""

from __future__ import annotations

import hmac
import os
from functools import lru_cache, partial

from ...conf import Config, Identity, PubSubConfig
from ...core.clock import SYSTEM_CLOCK
from . import tokens
from .certificates import CertificateCache
from .errors import CertificatesUnavailable, RequestRefused
from .fetching import GOOGLES, fetch_from, fetch_from_emulator

CLOUD_RUN_VARIABLE = "K_SERVICE"
"""Environment variable that Cloud Run sets in each container of a service."""


async def verify_push(config: Config, authorization: str | None) -> Identity | None:
    """Verify a push by its `Authorization` header. Returns the sender, or None if no verification is needed.

    Raises RequestRefused.
    """
    if config.settings.allow_unverified or await _is_open(config):
        return None
    return await _verify(config, authorization, config.push_identities)


async def verify_beat(config: Config, authorization: str | None) -> Identity | None:
    """Verify a beat by its `Authorization` header.

    Returns the sender, or None if the beat brings the `beat_token` or no verification is needed. Raises RequestRefused.
    """
    settings = config.settings
    if settings.allow_unverified:
        return None
    if settings.beat_token is not None and hmac.compare_digest(
        _bearer(authorization).encode(), settings.beat_token.encode()
    ):
        return None
    signers = config.beat_identities
    if config.pubsub.emulator and settings.beat_token is None and not (signers and settings.certificates_url):
        return None  # no emulator signs beats
    if settings.beat_token is not None and not signers:
        raise RequestRefused(401, "secret", "The request does not bring the beat_token of I3TASKS.")
    return await _verify(config, authorization, signers)


async def _is_open(config: Config) -> bool:
    """Tell whether this is an emulator that signs no pushes, so that they can't be verified."""
    if not config.pubsub.emulator:
        return False
    if not config.push_identities:
        return True
    if config.settings.certificates_url is not None:
        return False
    try:
        return not await _cache(config).all()
    except CertificatesUnavailable:
        return True  # no emulator runs at this address, so no push comes from it


async def _verify(config: Config, authorization: str | None, expected: frozenset[Identity]) -> Identity:
    if not expected:
        raise RequestRefused(
            403,
            "not_configured",
            "No sender is configured: set service_account and endpoint in I3TASKS, or allow_unverified=True only on a "
            "network that is closed to others.",
        )
    token = _bearer(authorization)
    if not token:
        raise RequestRefused(401, "missing", "The request has no header `Authorization: Bearer <OIDC token>`.")
    now = SYSTEM_CLOCK.now()
    if token.endswith(f".{tokens.REMOVED_SIGNATURE}"):
        _require_cloud_run(config)
        return tokens.check_unsigned(token, expected, now)
    key_id = tokens.key_id_of(token)
    try:
        certificate = await _cache(config).find(key_id)
    except CertificatesUnavailable as error:
        raise RequestRefused(503, "certificates", "The token can't be checked now: no certificates.") from error
    if certificate is None:
        raise RequestRefused(401, "key", "The token is signed with a key that Google does not have.")
    return tokens.check(token, key_id, certificate, expected, now)


def _require_cloud_run(config: Config) -> None:
    if not (config.settings.cloud_run_verifies and CLOUD_RUN_VARIABLE in os.environ):
        raise RequestRefused(
            401,
            "unsigned",
            "The token's signature was removed. Set cloud_run_verifies=True in I3TASKS if this is a Cloud Run service "
            "that requires authentication: it has checked the signature then.",
        )


def _bearer(authorization: str | None) -> str:
    """Read the token of an `Authorization` header. Returns "" if it has none."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _cache(config: Config) -> CertificateCache:
    url = config.settings.certificates_url
    if url is None and config.pubsub.emulator:
        return _emulators(config.pubsub)
    return _fetched_from(url or GOOGLES)


@lru_cache(maxsize=8)
def _fetched_from(url: str) -> CertificateCache:
    return CertificateCache(partial(fetch_from, url))


@lru_cache(maxsize=8)
def _emulators(pubsub: PubSubConfig) -> CertificateCache:
    return CertificateCache(partial(fetch_from_emulator, pubsub))


def forget_certificates() -> None:
    """Drop all copies, in a forked child: it lacks the thread that fetched in its parent."""
    _fetched_from.cache_clear()
    _emulators.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_certificates)

"""The check of one OIDC token: signature, issuer, times, audience and account."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from ...conf import Identity
from .errors import RequestRefused

ISSUERS = ("https://accounts.google.com", "accounts.google.com")
SKEW_SECONDS = 10
"""Largest accepted difference between Google's clock and this machine's."""
LONGEST_TOKEN = 8_192
"""Largest accepted length in characters. Google's tokens have about a thousand."""
REMOVED_SIGNATURE = "SIGNATURE_REMOVED_BY_GOOGLE"
"""Text that Cloud Run puts in place of a signature that it has verified."""

_BROKEN: tuple[type[Exception], ...] = (ValueError, TypeError, KeyError, RecursionError)
_REASONS = (("Token expired", "expired"), ("Token used too early", "early"), ("Could not verify", "signature"))
"""Start of google-auth's message -> our reason. The message itself is not shown, because it may quote the token."""
_SENTENCES = {
    "expired": "The token has expired.",
    "early": "The token is from the future. Check the clock of this machine.",
    "signature": "The token was not signed with the key that it names.",
    "malformed": "The token is not an OIDC token that is signed with RS256.",
}


def key_id_of(token: str) -> str:
    """Read the id of the key that a token names. Raises RequestRefused for text that is no RS256 token."""
    try:
        if len(token) > LONGEST_TOKEN:
            raise ValueError
        header, _, _ = token.split(".")
        fields = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
        algorithm, key_id = fields["alg"], fields["kid"]
    except _BROKEN:
        raise _refused("malformed") from None
    if algorithm != "RS256" or not isinstance(key_id, str) or not key_id:
        raise _refused("malformed")
    return key_id


def check(token: str, key_id: str, certificate: str, expected: Collection[Identity], now: datetime) -> Identity:
    """Verify a token with the certificate of its key, in PEM. Returns the expected identity that the token proves.

    Raises RequestRefused.
    """
    claims = _decoded(token, certs={key_id: certificate}, clock_skew_in_seconds=SKEW_SECONDS)
    return check_claims(claims, expected, now)


def check_unsigned(token: str, expected: Collection[Identity], now: datetime) -> Identity:
    """Check the claims of a token whose signature Cloud Run has verified and removed. Raises RequestRefused."""
    return check_claims(_decoded(token, verify=False), expected, now)


def check_claims(claims: Mapping[str, Any], expected: Collection[Identity], now: datetime) -> Identity:
    """Find the expected identity that the claims of a verified token name. Raises RequestRefused."""
    _check_times(claims, now.timestamp())
    if claims.get("iss") not in ISSUERS:
        raise RequestRefused(401, "issuer", "The token was not issued by Google. Let a service account sign it.")
    audience, account = claims.get("aud"), claims.get("email")
    accounts = {one.service_account: one for one in expected if one.audience == audience}
    if not accounts:
        raise RequestRefused(401, "audience", "The token is meant for another audience. Compare `audience` in I3TASKS.")
    if claims.get("email_verified") is not True:
        raise RequestRefused(
            401, "unverified", "The token's e-mail address is not verified. Let a service account sign the request."
        )
    if not isinstance(account, str) or account not in accounts:
        raise RequestRefused(
            403, "account", "The token is that of another service account. Compare `service_account` in I3TASKS."
        )
    return accounts[account]


def _decoded(token: str, **how: Any) -> Mapping[str, Any]:
    """Decode a token with google-auth. Returns its claims. Raises RequestRefused."""
    jwt, google_auth_error = _google_auth()
    try:
        claims: Mapping[str, Any] = jwt.decode(token, **how)
    except (google_auth_error, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = next((reason for start, reason in _REASONS if str(error).startswith(start)), "malformed")
        raise _refused(reason) from None
    return claims


def _google_auth() -> tuple[Any, type[Exception]]:
    """Import google-auth, which has no type hints, when the first token is checked."""
    from google.auth import jwt
    from google.auth.exceptions import GoogleAuthError

    return jwt, GoogleAuthError


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    issued, expires, not_before = claims.get("iat"), claims.get("exp"), claims.get("nbf", 0)
    if not all(_is_time(instant) for instant in (issued, expires, not_before)):
        raise _refused("malformed")
    if now > claims["exp"] + SKEW_SECONDS:
        raise _refused("expired")
    if now < max(claims["iat"], not_before) - SKEW_SECONDS:
        raise _refused("early")


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _refused(reason: str) -> RequestRefused:
    return RequestRefused(401, reason, _SENTENCES[reason])

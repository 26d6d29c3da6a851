"""The check of an OIDC token: who gets in, and what each other token is refused for."""

from __future__ import annotations

import hashlib
import hmac
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from i3tasks.broker.auth import tokens
from i3tasks.broker.auth.errors import RequestRefused
from i3tasks.conf import Identity
from tests.support.oidc import BEAT_URL, PUSH_URL, PUSHER, claims, encoded, key, segment

EXPECTED = frozenset({Identity(PUSHER, PUSH_URL), Identity("film@shop.iam.gserviceaccount.com", "films")})


def checked(token: str) -> Identity:
    """As the doors do it, with the certificate of the key `k1`."""
    key_id = tokens.key_id_of(token)
    return tokens.check(token, key_id, key("k1").certificate, EXPECTED, datetime.now(UTC))


def refusal(token: str) -> tuple[int, str]:
    with pytest.raises(RequestRefused) as caught:
        checked(token)
    assert len(token) < 100 or token not in str(caught.value)
    assert len(str(caught.value)) > 15
    assert caught.value.__cause__ is None
    return caught.value.status, caught.value.reason


def signed(**changes: Any) -> str:
    return key("k1").sign(claims(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"iss": "accounts.google.com"},
        {"exp": timedelta(seconds=-5), "iat": timedelta(seconds=-3_600)},
        {"iat": timedelta(seconds=5)},
        {"nbf": timedelta(seconds=5)},
        {"exp": timedelta(seconds=3_600.5)},
    ],
    ids=str,
)
def test_good_tokens(changes: dict[str, Any]) -> None:
    assert checked(signed(**changes)) == Identity(PUSHER, PUSH_URL)


def test_which_of_those_that_are_expected_sent_it() -> None:
    token = signed(aud="films", email="film@shop.iam.gserviceaccount.com")
    assert checked(token) == Identity("film@shop.iam.gserviceaccount.com", "films")


CLAIMS: list[tuple[dict[str, Any], int, str]] = [
    ({"aud": BEAT_URL}, 401, "audience"),
    ({"aud": PUSH_URL.rstrip("/")}, 401, "audience"),
    ({"aud": PUSH_URL.upper()}, 401, "audience"),
    ({"aud": [PUSH_URL]}, 401, "audience"),
    ({"aud": PUSH_URL + " films"}, 401, "audience"),
    ({"aud": ""}, 401, "audience"),
    ({"aud": ...}, 401, "audience"),
    ({"iss": "https://accounts.example.com"}, 401, "issuer"),
    ({"iss": "https://accounts.google.com/"}, 401, "issuer"),
    ({"iss": ["https://accounts.google.com"]}, 401, "issuer"),
    ({"iss": ...}, 401, "issuer"),
    ({"email_verified": False}, 401, "unverified"),
    ({"email_verified": "true"}, 401, "unverified"),
    ({"email_verified": 1}, 401, "unverified"),
    ({"email_verified": ...}, 401, "unverified"),
    ({"email": "film@shop.iam.gserviceaccount.com"}, 403, "account"),
    ({"email": PUSHER.upper()}, 403, "account"),
    ({"email": [PUSHER]}, 403, "account"),
    ({"email": {"a": 1}}, 403, "account"),
    ({"email": ...}, 403, "account"),
    ({"exp": timedelta(seconds=-3_600), "iat": timedelta(seconds=-7_200)}, 401, "expired"),
    ({"iat": timedelta(seconds=3_600), "exp": timedelta(seconds=7_200)}, 401, "early"),
    ({"nbf": timedelta(seconds=3_600)}, 401, "early"),
    ({"exp": ...}, 401, "malformed"),
    ({"iat": ...}, 401, "malformed"),
    ({"exp": "tomorrow"}, 401, "malformed"),
    ({"exp": float("inf")}, 401, "malformed"),
    ({"exp": float("nan")}, 401, "malformed"),
    ({"exp": True}, 401, "expired"),
    ({"nbf": None}, 401, "malformed"),
]


@pytest.mark.parametrize(("changes", "status", "reason"), CLAIMS, ids=str)
def test_a_signed_token_with_other_claims(changes: dict[str, Any], status: int, reason: str) -> None:
    assert refusal(signed(**changes)) == (status, reason)


def without_signature() -> str:
    return f"{segment({'alg': 'none', 'kid': 'k1'})}.{segment(claims())}."


def with_the_public_key_as_secret(secret: bytes) -> str:
    text = f"{segment({'alg': 'HS256', 'kid': 'k1'})}.{segment(claims())}"
    return f"{text}.{encoded(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def with_other_claims() -> str:
    head, _, signature = signed(email="film@shop.iam.gserviceaccount.com").split(".")
    return f"{head}.{segment(claims())}.{signature}"


FORGED = {
    "alg none": (without_signature(), "malformed"),
    "alg None": (f"{segment({'alg': None, 'kid': 'k1'})}.{segment(claims())}.", "malformed"),
    "HS256 with the public key": (with_the_public_key_as_secret(key("k1").public), "malformed"),
    "HS256 with the certificate": (with_the_public_key_as_secret(key("k1").certificate.encode()), "malformed"),
    "ES256": (key("k1").sign(claims(), alg="ES256"), "malformed"),
    "signed by another key of the same name": (key("k2").sign(claims(), kid="k1"), "signature"),
    "other claims than were signed": (with_other_claims(), "signature"),
    "signature left out": (signed().rpartition(".")[0] + ".", "signature"),
    "signature cut off": (signed()[:-10], "signature"),
    "no key": (key("k1").sign(claims(), kid=None), "malformed"),
    "key is a list": (key("k1").sign(claims(), kid=["k1"]), "malformed"),
    "key is empty": (key("k1").sign(claims(), kid=""), "malformed"),
    "claims are a list": (key("k1").sign([claims()]), "malformed"),
    "claims are deep": (f"{segment({'alg': 'RS256', 'kid': 'k1'})}.{encoded(b'[' * 4_000)}.AAAA", "malformed"),
    "header is deep": (f"{encoded(b'[' * 5_000)}.{segment(claims())}.AAAA", "malformed"),
    "header is a list": (f"{segment(['RS256'])}.{segment(claims())}.AAAA", "malformed"),
    "huge": (signed(filler="x" * 10_000), "malformed"),
    "very huge": ("e" * 1_000_000 + ".a.b", "malformed"),
    "garbage": ("garbage", "malformed"),
    "empty": ("", "malformed"),
    "dots": ("..", "malformed"),
    "too many parts": (signed() + ".x", "malformed"),
    "no ASCII": ("ü.ü.ü", "malformed"),
    "NUL": ("\0.\0.\0", "malformed"),
    "a number without end": (f"{segment({'alg': 'RS256', 'kid': 'k1'})}.{encoded(b'9' * 5_000)}.AAAA", "malformed"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_token_that_is_forged_or_broken(name: str) -> None:
    token, reason = FORGED[name]
    assert refusal(token) == (401, reason)


@given(st.one_of(st.text(max_size=200), st.lists(st.text(max_size=40), min_size=3, max_size=3).map(".".join)))
def test_whatever_is_sent_is_refused(text: str) -> None:
    assert refusal(text)[0] == 401


ODD = st.from_type(type(None) | bool | int | float | str | list | dict)  # type: ignore[arg-type]


@given(
    st.dictionaries(st.sampled_from(["iss", "aud", "email", "email_verified", "iat", "exp", "nbf"]), ODD, min_size=1)
)
def test_odd_claims_never_raise_anything_else(changes: dict[str, Any]) -> None:
    with suppress(RequestRefused):
        assert tokens.check_claims(claims(**changes), EXPECTED, datetime.now(UTC)).service_account == PUSHER

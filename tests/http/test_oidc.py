"""Push and beat off an emulator: what each token is answered, and that nothing runs before it was verified."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.test import AsyncClient, Client
from django.urls import reverse

from i3tasks.broker.auth.verification import forget_certificates
from i3tasks.core.envelope import Envelope
from i3tasks.models import TaskExecutionTry
from i3tasks.types import PushQueue
from tests.shop.tasks import add, pushed
from tests.support.oidc import BEAT_URL, PUSH_URL, PUSHER, Issuer, claims, encoded, key, segment, serving

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PUSH, BEAT = reverse("i3tasks-push"), reverse("i3tasks-beat")
SECRET = "a secret of this test"


@pytest.fixture
def issuer(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    """Settings of a real project that trusts this issuer."""
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    settings.PUBSUB_CONFIG = {"PROJECT_ID": "real"}
    with serving() as issuer:
        settings.I3TASKS = replace(
            settings.I3TASKS,
            other_queues=(PushQueue("push", "push"),),
            endpoint="https://shop.example.com/i3/",
            service_account=PUSHER,
            certificates_url=issuer.url,
        )
        forget_certificates()
        yield issuer


def change(settings: Any, **changes: Any) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, **changes)


async def body() -> str:
    """A push of a task that is waiting."""
    task_try = (await add.using(queue_name="push").adelay(1, 2)).task_execution_try
    envelope = Envelope(task_try.task_execution_id, task_try.pk, "tests.shop.tasks", "add").to_bytes()
    return json.dumps({"message": {"data": base64.b64encode(envelope).decode(), "messageId": "1"}})


async def post(authorization: str | None, url: str = PUSH, text: str | None = None) -> Any:
    headers = {} if authorization is None else {"Authorization": authorization}
    content = await body() if text is None and url == PUSH else text or ""
    return await AsyncClient().post(url, content, content_type="application/json", headers=headers)


async def has_run() -> bool:
    return await TaskExecutionTry.objects.filter(started_at__isnull=False).aexists()


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "Bearer   "])
async def test_a_good_token_is_let_in(issuer: Issuer, scheme: str) -> None:
    response = await post(scheme + issuer.token())
    assert (response.status_code, response.json()["result"]["result"]) == (200, 3)


def bad_tokens() -> dict[str, tuple[str | None, int]]:
    good = key("k1").sign(claims())
    return {
        "missing": (None, 401),
        "another scheme": ("Basic " + good, 401),
        "no scheme": (good, 401),
        "empty": ("Bearer ", 401),
        "garbage": ("Bearer garbage", 401),
        "two": (f"Bearer {good}, Bearer {good}", 401),
        "huge": ("Bearer " + "x" * 60_000, 401),
        "no ASCII": ("Bearer \xff.\xff.\xff", 401),
        "wrong audience": ("Bearer " + key("k1").sign(claims(aud=BEAT_URL)), 401),
        "wrong key": ("Bearer " + key("k2").sign(claims(), kid="k1"), 401),
        "wrong key id": ("Bearer " + key("k2").sign(claims()), 401),
        "wrong issuer": ("Bearer " + key("k1").sign(claims(iss="https://evil.example.com")), 401),
        "wrong account": ("Bearer " + key("k1").sign(claims(email="other@shop.iam.gserviceaccount.com")), 403),
        "unverified": ("Bearer " + key("k1").sign(claims(email_verified=False)), 401),
        "expired": ("Bearer " + key("k1").sign(claims(iat=1, exp=3_601)), 401),
        "from the future": ("Bearer " + key("k1").sign(claims(iat=4_000_000_000, exp=4_000_003_600)), 401),
        "alg none": (f"Bearer {segment({'alg': 'none', 'kid': 'k1'})}.{segment(claims())}.", 401),
        "HS256": ("Bearer " + key("k1").sign(claims(), alg="HS256"), 401),
        "deep": (f"Bearer {encoded(b'[' * 5_000)}.e30.e30", 401),
        "signature removed": (f"Bearer {good.rpartition('.')[0]}.SIGNATURE_REMOVED_BY_GOOGLE", 401),
    }


@pytest.mark.parametrize("name", bad_tokens())
@pytest.mark.parametrize("url", [PUSH, BEAT])
async def test_a_bad_token_runs_nothing(
    issuer: Issuer, url: str, name: str, events: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    authorization, status = bad_tokens()[name]
    if url == BEAT and name == "wrong audience":
        authorization = "Bearer " + issuer.token(aud=PUSH_URL)
    elif url == BEAT and name in ("wrong account", "unverified"):
        status = 401  # the audience is that of a push, which is seen first
    caplog.set_level(logging.DEBUG)
    response = await post(authorization, url)
    assert (response.status_code, response.json()["status"]) == (status, "bad")
    assert ("WWW-Authenticate" in response.headers) == (status == 401)
    assert events[-1] == "request_denied"
    assert not await has_run()
    for secret in (authorization or "").split()[1:]:
        assert len(secret) < 10 or secret[:200] not in caplog.text + response.text, "tokens are never logged"


@pytest.mark.parametrize("text", ["{", "x" * 3_000_000])
async def test_a_body_is_not_looked_at_before(issuer: Issuer, text: str) -> None:
    assert (await post("Bearer garbage", PUSH, text)).status_code == 401


async def test_certificates_that_are_down_are_a_503_and_a_copy_goes_on(
    issuer: Issuer, settings: Any, events: list[str]
) -> None:
    issuer.down()
    response = await post("Bearer " + issuer.token())
    assert (response.status_code, response.json()["status"]) == (503, "bad")
    assert events[-2:] == ["certificates_unavailable", "request_denied"]
    assert not await has_run()

    forget_certificates()
    issuer.answer = None
    assert (await post("Bearer " + issuer.token())).status_code == 200
    issuer.down()
    assert (await post("Bearer " + issuer.token())).status_code == 200
    assert (await post("Bearer " + key("k2").sign(claims()))).status_code == 503, "the key may be a new one"


async def test_a_rotation_under_load_refuses_nothing(issuer: Issuer) -> None:
    before = issuer.token()
    assert (await post("Bearer " + before)).status_code == 200
    issuer.keys.append(key("k2"))
    tokens = [before, issuer.token()] * 20
    bodies = [await body() for _ in tokens]
    responses = await asyncio.gather(
        *(post(f"Bearer {token}", PUSH, text) for token, text in zip(tokens, bodies, strict=True))
    )
    assert {response.status_code for response in responses} == {200}
    assert issuer.fetches == 2


def test_under_wsgi_too(issuer: Issuer) -> None:
    """Where each request has an event loop of its own."""
    for _ in range(3):
        headers = {"Authorization": f"Bearer {issuer.token(aud=BEAT_URL)}"}
        assert Client(headers=headers).post(BEAT).json() == {"status": "ok"}
    assert Client().post(BEAT).status_code == 401
    assert issuer.fetches == 1


# ------------------------------------------------------------------------------------------------------------ settings


async def test_each_queue_may_have_an_account_and_an_audience(issuer: Issuer, settings: Any) -> None:
    film = "film@shop.iam.gserviceaccount.com"
    change(settings, other_queues=(PushQueue("push", "push"), PushQueue("film", "web", None, film, "films")))
    assert (await post("Bearer " + issuer.token())).status_code == 200
    assert (await post("Bearer " + issuer.token(email=film))).status_code == 403, "each with the other's audience"
    assert (await post("Bearer " + issuer.token(aud="films"))).status_code == 403


async def test_an_account_runs_the_tries_of_its_own_queues_only(issuer: Issuer, settings: Any) -> None:
    film = "film@shop.iam.gserviceaccount.com"
    change(settings, other_queues=(PushQueue("push", "push"), PushQueue("film", "web", None, film)))
    text = await body()
    response = await post("Bearer " + issuer.token(email=film), PUSH, text)
    assert (response.status_code, response.json()["error"]) == (404, "unknown")
    assert not await has_run()
    assert (await post("Bearer " + issuer.token(), PUSH, text)).json()["status"] == "ok"


@pytest.mark.parametrize("url", [PUSH, BEAT])
async def test_without_an_account_every_request_is_refused(issuer: Issuer, settings: Any, url: str) -> None:
    change(settings, service_account=None)
    response = await post("Bearer " + issuer.token(), url)
    assert (response.status_code, issuer.fetches) == (403, 0)
    assert "service_account" in response.json()["error"]


async def test_allow_unverified_asks_for_nothing(issuer: Issuer, settings: Any) -> None:
    change(settings, allow_unverified=True)
    assert (await post(None)).status_code == 200
    assert (await post(None, BEAT)).status_code == 200
    assert issuer.fetches == 0


# ---------------------------------------------------------------------------------------------------------------- beat


async def test_a_beat_brings_a_token_for_its_own_url(issuer: Issuer) -> None:
    response = await post("Bearer " + issuer.token(aud=BEAT_URL), BEAT)
    assert response.json() == {"status": "ok"}


@pytest.mark.parametrize("account", [PUSHER, None])
async def test_a_beat_may_bring_the_secret(issuer: Issuer, settings: Any, account: str | None) -> None:
    change(settings, beat_token=SECRET, service_account=account)
    assert (await post(f"Bearer {SECRET}", BEAT)).json() == {"status": "ok"}
    for wrong in (None, "Bearer ", f"Bearer {SECRET}x", f"Bearer {SECRET[:-1]}", f"Basic {SECRET}", "Bearer \xff"):
        assert (await post(wrong, BEAT)).status_code == 401
    assert issuer.fetches == 0
    assert (await post("Bearer " + issuer.token(aud=BEAT_URL), BEAT)).status_code == (200 if account else 401)
    assert (await post(f"Bearer {SECRET}")).status_code in (401, 403), "it opens nothing else"


async def test_the_secret_counts_on_an_emulator_too(settings: Any) -> None:
    assert (await post(None, BEAT)).status_code == 200
    change(settings, beat_token=SECRET)
    assert (await post(None, BEAT)).status_code == 401
    assert (await post(f"Bearer {SECRET}", BEAT)).status_code == 200


# ----------------------------------------------------------------------------------------------------------- Cloud Run


async def test_cloud_run_may_have_checked_the_signature(
    issuer: Issuer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def removed(**changes: Any) -> str:
        return f"Bearer {issuer.token(**changes).rpartition('.')[0]}.SIGNATURE_REMOVED_BY_GOOGLE"

    change(settings, cloud_run_verifies=True)
    assert (await post(removed())).status_code == 401, "this is not Cloud Run"
    monkeypatch.setenv("K_SERVICE", "shop")
    assert (await post(removed())).status_code == 200
    assert (await post(removed(aud=BEAT_URL), BEAT)).status_code == 200
    assert issuer.fetches == 0
    assert (await post(removed(email="other@shop.iam.gserviceaccount.com"))).status_code == 403
    for wrong in ({"aud": "x"}, {"iat": 1, "exp": 2}, {"email_verified": False}, {"iss": "x"}, {"exp": ...}):
        assert (await post(removed(**wrong))).status_code == 401
    assert (await post("Bearer a.b.SIGNATURE_REMOVED_BY_GOOGLE")).status_code == 401
    assert (await post(f"Bearer {key('k2').sign(claims(), kid='k1')}")).status_code == 401, "a signature is checked"
    change(settings, cloud_run_verifies=False)
    response = await post(removed())
    assert (response.status_code, "cloud_run_verifies" in response.json()["error"]) == (401, True)


# --------------------------------------------------------------------------------------------------------- an emulator


async def test_an_emulator_that_signs_nothing_stays_open(settings: Any) -> None:
    """Nothing listens at the address in these settings; on Google's emulator it is the same."""
    change(settings, service_account=PUSHER)
    assert (await post(None)).status_code == 200


async def test_the_embedded_emulators_certificates_are_found(on_embedded: str, settings: Any) -> None:
    change(settings, service_account=PUSHER)
    assert (await post(None)).status_code == 401
    assert (await post("Bearer " + key("k1").sign(claims()))).status_code == 401
    change(settings, service_account=None)
    assert (await post(None)).status_code == 200


async def test_pushes_are_verified_before_they_are_answered(issuer: Issuer) -> None:
    """The answer brings the task's result, so it is for the sender only."""
    task_try = (await pushed.adelay("secret result")).task_execution_try
    envelope = Envelope(task_try.task_execution_id, task_try.pk, "tests.shop.tasks", "pushed").to_bytes()
    text = json.dumps({"message": {"data": base64.b64encode(envelope).decode()}})
    assert "secret result" not in (await post(None, PUSH, text)).text
    assert "secret result" in (await post("Bearer " + issuer.token(), PUSH, text)).text

"""Verified pushes in real processes: uvicorn, the embedded emulator that signs, and an issuer in Google's stead."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from i3tasks.models import TaskExecution, TaskExecutionTry
from tests.http.site import body_of, site
from tests.shop.tasks import add, pushed
from tests.support.oidc import Issuer, claims, encoded, key, segment, serving
from tests.support.rigs import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("on_embedded")]

OTHER = "other@shop.iam.gserviceaccount.com"


def finished(count: int) -> bool:
    return TaskExecution.objects.filter(outcome__isnull=False).count() == count


def test_the_emulator_signs_and_the_site_verifies(settings: Any) -> None:
    with site(settings) as (url, child):
        handles = [pushed.delay(f"v{number}") for number in range(5)]
        until(lambda: finished(5), what=lambda: child.output)
        tries = TaskExecutionTry.objects.select_related("result")
        results = {task_try.task_execution_id: task_try.result.result for task_try in tries}
        assert results == {handle.task_execution_id: f"v{number}" for number, handle in enumerate(handles)}

        for headers in ({}, {"Authorization": f"Bearer {key('k1').sign(claims(aud=url))}"}):
            assert httpx.post(url, content=body_of(add, 1, 2), headers=headers).status_code == 401
        assert "request_denied" in child.output
        assert "Bearer" not in child.output


def test_pushes_of_another_account_are_refused(settings: Any) -> None:
    with site(settings, service_account=OTHER) as (_, child):
        pushed.delay("never")
        child.says("request_denied.*status=403 reason='account'")
        assert TaskExecutionTry.objects.get().started_at is None


def tokens_of(issuer: Issuer, url: str) -> dict[str, tuple[str | None, int]]:
    good = claims(aud=url)
    return {
        "missing": (None, 401),
        "garbage": ("garbage", 401),
        "huge": ("x" * 30_000, 401),
        "audience": (issuer.token(aud=url + "x"), 401),
        "key": (key("k2").sign(good, kid="k1"), 401),
        "key id": (key("k2").sign(good), 401),
        "issuer": (issuer.token(aud=url, iss="https://accounts.example.com"), 401),
        "account": (issuer.token(aud=url, email=OTHER), 403),
        "unverified": (issuer.token(aud=url, email_verified=False), 401),
        "expired": (issuer.token(aud=url, iat=1, exp=3_601), 401),
        "future": (issuer.token(aud=url, iat=4_000_000_000, exp=4_000_003_600), 401),
        "none": (f"{segment({'alg': 'none', 'kid': 'k1'})}.{segment(good)}.", 401),
        "HS256": (key("k1").sign(good, alg="HS256"), 401),
        "deep": (f"{encoded(b'[' * 5_000)}.e30.e30", 401),
    }


def test_each_token_through_uvicorn(settings: Any) -> None:
    with serving() as issuer, site(settings, certificates_url=issuer.url) as (url, child), httpx.Client() as client:

        def post(token: str | None) -> httpx.Response:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            return client.post(url, content=body_of(add, 1, 2), headers=headers)

        issuer.down()
        assert post(issuer.token(aud=url)).status_code == 503
        issuer.answer = None
        until(lambda: post(issuer.token(aud=url)).status_code == 200)
        for name, (token, status) in tokens_of(issuer, url).items():
            response = post(token)
            assert (name, response.status_code, response.json()["status"]) == (name, status, "bad")
        issuer.down()
        assert post(issuer.token(aud=url)).status_code == 200, "an old copy goes on"
        assert "Traceback" not in child.output


def test_a_rotation_under_load_through_uvicorn(settings: Any) -> None:
    with serving() as issuer, site(settings, certificates_url=issuer.url) as (url, child), httpx.Client() as client:
        old = issuer.token(aud=url)
        assert client.post(url, content=body_of(add, 1, 2), headers={"Authorization": f"Bearer {old}"}).json()
        issuer.keys.append(key("k2"))
        requests = [(body_of(add, number, 1), token) for number in range(30) for token in (old, issuer.token(aud=url))]
        with ThreadPoolExecutor(20) as threads:
            responses = list(
                threads.map(
                    lambda one: client.post(
                        url, content=one[0], headers={"Authorization": f"Bearer {one[1]}"}, timeout=60
                    ),
                    requests,
                )
            )
        assert {response.status_code for response in responses} == {200}, child.output
        assert issuer.fetches == 2

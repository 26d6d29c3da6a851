"""Many pushes at once, and what is no push, sent to a real uvicorn that verifies its requests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from i3tasks.models import TaskExecutionTry
from tests.http.site import body_of, site
from tests.shop.flows import note
from tests.shop.models import Order
from tests.support.children import Child
from tests.support.oidc import Issuer, serving

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("on_embedded")]

PUSHES, DUPLICATES = 200, 20


class Site(NamedTuple):
    """The URL of tasks-push/, a client, a token that is let in, and the process."""

    url: str
    client: httpx.Client
    token: str
    child: Child

    def post(self, content: bytes, **headers: str) -> httpx.Response:
        authorization = {"Authorization": f"Bearer {self.token}"}
        return self.client.post(self.url, content=content, headers={**authorization, **headers}, timeout=100)


@pytest.fixture
def verified(settings: Any) -> Iterator[Site]:
    """A site that trusts an issuer of the test's own."""
    limits = httpx.Limits(max_connections=100)
    with serving() as issuer, site(settings, certificates_url=issuer.url) as (url, child):
        with httpx.Client(limits=limits) as client:
            yield Site(url, client, _token(issuer, url), child)
        assert "Traceback" not in child.output


def _token(issuer: Issuer, url: str) -> str:
    return issuer.token(aud=url)


def test_each_of_200_pushes_at_once_runs_once(verified: Site) -> None:
    """Twenty of them come twenty times over."""
    names = [f"order {number}" for number in range(PUSHES)]
    bodies = [body_of(note, name) for name in names]
    with ThreadPoolExecutor(100) as threads:
        responses = list(threads.map(verified.post, [*bodies, *bodies[:DUPLICATES] * DUPLICATES]))
    assert Counter(response.status_code for response in responses) == {200: PUSHES + DUPLICATES * DUPLICATES}
    told = [response.json() for response in responses]
    assert sum(answer["status"] == "ok" for answer in told) == PUSHES, "the others were told that nothing was run"
    assert sorted(Order.objects.values_list("name", flat=True)) == sorted(names)
    assert TaskExecutionTry.objects.filter(is_success=True, try_number=1).count() == PUSHES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
MESSAGES = st.fixed_dictionaries(
    {
        "message": st.fixed_dictionaries(
            {}, optional={"data": JSON, "attributes": JSON, "messageId": JSON, "publishTime": JSON}
        )
    }
)
BODIES = st.binary(max_size=300) | (JSON | MESSAGES).map(lambda value: json.dumps(value).encode())
TEXTS = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), min_size=1, max_size=60)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Authorization",
            "Content-Type",
            "Content-Encoding",
            "X-CloudScheduler-ScheduleTime",
            "Cookie",
            "Accept",
            "Accept-Language",
            "If-Modified-Since",
            "X-Forwarded-For",
        ]
    ),
    TEXTS,
    max_size=3,
)
ENDPOINTS = st.sampled_from(
    ["tasks-push/", "tasks-beat/", "tasks-health/", "tasks-status/1/", "tasks-status/9" + "9" * 30 + "/"]
)
METHODS = st.sampled_from(["POST", "GET", "PUT"])


def test_whatever_is_sent_is_never_a_500(verified: Site) -> None:
    base = verified.url.removesuffix("tasks-push/")

    @examples(max_examples=200, suppress_health_check=list(HealthCheck))
    @given(endpoint=ENDPOINTS, method=METHODS, body=BODIES, headers=HEADERS, brings_token=st.booleans())
    def send(endpoint: str, method: str, body: bytes, headers: dict[str, str], brings_token: bool) -> None:
        sent = {name: text.encode("latin-1") for name, text in headers.items()}
        if brings_token:
            sent["Authorization"] = f"Bearer {verified.token}".encode()
        response = verified.client.request(method, base + endpoint, content=body, headers=sent)
        assert response.status_code in (200, 400, 401, 404, 405), response.text
        if len(endpoint) < 40:
            assert isinstance(response.json(), dict)

    send()
    assert "internal_error" not in verified.child.output

"""What every endpoint answers: JSON, also for errors, and never a traceback."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler
from django.db import OperationalError
from django.test import AsyncClient, Client
from django.urls import reverse

from i3tasks.core.envelope import Envelope
from i3tasks.views import push

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

PUSH, BEAT = reverse("i3tasks-push"), reverse("i3tasks-beat")
HEALTH, STATUS = reverse("i3tasks-health"), reverse("i3tasks-status", args=[1])
STEPS = {
    PUSH: "i3tasks.views.push.carry_out",
    BEAT: "i3tasks.views.beat.dispatch",
    HEALTH: "i3tasks.views.monitoring.health_of_tasks",
    STATUS: "i3tasks.views.monitoring.status_of",
}
"""Where something can go wrong, for each endpoint."""


async def call(url: str) -> Any:
    client = AsyncClient(raise_request_exception=False)
    if url in (PUSH, BEAT):
        return await client.post(url, good_message(), content_type="application/json")
    return await client.get(url)


def good_message() -> str:
    data = base64.b64encode(Envelope(1, 1, "tests.shop.tasks", "add").to_bytes()).decode()
    return json.dumps({"message": {"data": data}})


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("url", STEPS)
async def test_an_error_of_ours_is_a_503_without_a_traceback(
    url: str, debug: bool, settings: Any, monkeypatch: pytest.MonkeyPatch, events: list[str]
) -> None:
    settings.DEBUG = debug

    async def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("the card 4242 is at fault")

    monkeypatch.setattr(STEPS[url], broken)
    response = await call(url)
    assert (response.status_code, response.headers["Content-Type"]) == (503, "application/json")
    assert "4242" not in response.text
    assert "Traceback" not in response.text
    assert "internal_error" in events


@pytest.mark.parametrize("url", STEPS)
async def test_a_database_that_is_away_is_a_503(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise OperationalError("at 10.0.0.7")

    monkeypatch.setattr(STEPS[url], away)
    response = await call(url)
    assert (response.status_code, "10.0.0.7" in response.text) == (503, False)
    assert "database" in response.text


@pytest.mark.parametrize("url", STEPS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
async def test_other_methods_are_a_405_in_json(url: str, method: str) -> None:
    allowed = "POST" if url in (PUSH, BEAT) else "GET"
    if method == allowed:
        return
    strict, strict_wsgi = AsyncClient(enforce_csrf_checks=True), Client(enforce_csrf_checks=True)
    for response in (await strict.generic(method, url), await asyncio.to_thread(strict_wsgi.generic, method, url)):
        assert (response.status_code, response.headers["Allow"]) == (405, allowed)
        assert method == "HEAD" or response.json()["status"] == "bad"


@pytest.mark.parametrize("limit", [1_000, None])
async def test_a_body_that_is_too_long_is_read_no_further(
    limit: int | None, settings: Any, monkeypatch: pytest.MonkeyPatch, events: list[str]
) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = limit
    monkeypatch.setattr(push, "LARGEST_REQUEST", 5_000)
    most = limit or 5_000
    for length, status in ((most, 400), (most + 1, 413), (10 * most, 413)):
        response = await AsyncClient().post(PUSH, b" " * length, content_type="application/json")
        assert (response.status_code, response.json()["status"]) == (status, "bad")
    assert events == ["envelope_refused"] * 3


async def test_a_body_of_unknown_length_is_limited_as_well(settings: Any) -> None:
    """Chunked: Django itself knows no limit then."""
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000
    scope = {"type": "http", "method": "POST", "path": PUSH, "headers": [(b"host", b"x")], "query_string": b""}
    request = ApplicationCommunicator(ASGIHandler(), scope)
    for more in (True, True, False):
        await request.send_input({"type": "http.request", "body": b" " * 600, "more_body": more})
    assert (await request.receive_output(30))["status"] == 413
    await request.receive_output(30)
    await request.wait()


@pytest.mark.parametrize("url", [HEALTH, STATUS])
async def test_tokens_are_not_logged(url: str, settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, health_token="right-token", status_token="right-token")
    caplog.set_level(logging.DEBUG)
    for token in ("wrong-token", "right-token"):
        await AsyncClient(headers={"Authorization": f"Bearer {token}"}).get(url)
    assert "-token" not in caplog.text

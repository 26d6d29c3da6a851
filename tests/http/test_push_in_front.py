"""Pushes that are answered in front of Django: the view's answers, and Django for everything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.exceptions import ImproperlyConfigured
from django.test import AsyncClient, override_settings
from django.urls import reverse

from i3tasks.broker.auth.tokens import REMOVED_SIGNATURE
from i3tasks.models import TaskExecutionTry
from i3tasks.types import I3TasksSettings, PushQueue
from i3tasks.views import asgi
from i3tasks.views.asgi import with_push
from tests.http.test_push import message_of
from tests.shop.tasks import add

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("sent", "pushed_by_default"),
]

URL = reverse("i3tasks-push")
HOST = (b"host", b"testserver")
VERIFIED = I3TasksSettings(
    namespace="verified",
    default_queue=PushQueue("default", "worker"),
    service_account="push@example.com",
    endpoint="https://shop.example.com/i3/",
    certificates_url="http://127.0.0.1:1/",
)


async def django(scope: Any, receive: Any, send: Any) -> None:
    """Says that it was asked."""
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b'"django"'})


async def ask(body: Any, *, method: str = "POST", path: str = URL, parts: int = 1, **scope: Any) -> tuple[int, Any]:
    """The status and the JSON of the answer to a request whose body comes in parts."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    asked = {"type": "http", "method": method, "path": path, "root_path": "", "headers": [HOST], **scope}
    communicator = ApplicationCommunicator(with_push(django), asked)
    size = len(text) // parts + 1
    for first in range(0, parts * size, size):
        more = first + size < parts * size
        await communicator.send_input({"type": "http.request", "body": text[first : first + size], "more_body": more})
    start = await communicator.receive_output(10)
    content = (await communicator.receive_output(10))["body"]
    await communicator.wait(10)
    if start["headers"]:
        assert (b"content-length", b"%d" % len(content)) in start["headers"]
    return start["status"], json.loads(content)


@pytest.mark.parametrize("parts", [1, 3])
async def test_a_push_runs_its_try_and_is_answered_as_by_the_view(parts: int) -> None:
    first, second = [(await add.adelay(1, 2)).task_execution_try for _ in range(2)]

    status, answer = await ask(message_of(first), parts=parts)
    of_view = await AsyncClient().post(URL, json.dumps(message_of(second)), content_type="application/json")

    assert (status, answer["status"], answer["result"]["result"]) == (200, "ok", 3)
    assert of_view.json()["result"].keys() == answer["result"].keys()
    assert (await TaskExecutionTry.objects.aget(pk=first.pk)).is_success


async def test_what_is_no_push_goes_to_django() -> None:
    assert await ask({}, path="/admin/") == (299, "django")
    assert await ask({}, path=f"/below{URL}") == (299, "django")


async def test_a_root_path_does_not_count() -> None:
    status, answer = await ask({}, path=f"/below{URL}", root_path="/below")

    assert (status, answer["status"]) == (400, "bad")


async def test_the_views_refusals() -> None:
    assert (await ask({}, method="GET"))[0] == 405
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=100):
        assert (await ask(b"x" * 101, parts=4))[0] == 413
        assert (await ask(b"x" * 100))[0] == 400


async def test_the_sender_is_verified() -> None:
    with override_settings(I3TASKS=VERIFIED):
        assert (await ask({}))[0] == 401
        status, answer = await ask({}, headers=[HOST, (b"authorization", f"Bearer a.b.{REMOVED_SIGNATURE}".encode())])
        assert status == 401
        assert "signature was removed" in answer["error"]


@pytest.mark.parametrize(
    "fields",
    [[(b"host", b"evil.example")], [HOST, HOST], [(b"host", b"")], [HOST, (b"x-forwarded-host", b"evil.example")], []],
)
async def test_the_host_must_be_allowed(fields: Any) -> None:
    with override_settings(ALLOWED_HOSTS=["testserver"], USE_X_FORWARDED_HOST=True):
        status, answer = await ask({}, headers=fields)
    assert (status, answer["status"]) == (400, "bad")
    assert "ALLOWED_HOSTS" in answer["error"]


@pytest.mark.parametrize(
    ("status", "method", "fields", "config"),
    [
        (400, "POST", [(b"host", b"evil.example")], None),
        (405, "PUT", [HOST], None),
        (401, "POST", [HOST], VERIFIED),
        (401, "POST", [HOST, (b"authorization", b"Bearer a.b.c"), (b"authorization", b"Bearer a.b.c")], VERIFIED),
    ],
)
async def test_no_body_is_awaited_of_who_is_refused(status: int, method: str, fields: Any, config: Any) -> None:
    asked = {"type": "http", "method": method, "path": URL, "headers": fields}
    with override_settings(ALLOWED_HOSTS=["testserver"], **({"I3TASKS": config} if config else {})):
        communicator = ApplicationCommunicator(with_push(django), asked)
        assert (await communicator.receive_output(10))["status"] == status
        await communicator.wait(10)


async def test_a_body_that_stalls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_SECONDS", 0.05)
    asked = {"type": "http", "method": "POST", "path": URL, "headers": [HOST]}
    communicator = ApplicationCommunicator(with_push(django), asked)
    await communicator.send_input({"type": "http.request", "body": b"{", "more_body": True})
    assert (await communicator.receive_output(10))["status"] == 408
    await communicator.wait(10)


@pytest.mark.parametrize("given", [None, URL, f"/below{URL}"])
async def test_a_forced_script_name_is_in_the_path_or_taken_away_by_a_proxy(given: str | None) -> None:
    with override_settings(FORCE_SCRIPT_NAME="/below"):
        application = with_push(django, path=given)
        for path in (URL, f"/below{URL}"):
            asked = {"type": "http", "method": "GET", "path": path, "headers": [HOST]}
            communicator = ApplicationCommunicator(application, asked)
            assert (await communicator.receive_output(10))["status"] == 405, path
            await communicator.wait(10)


async def test_a_client_that_leaves_while_it_sends_is_not_answered() -> None:
    asked = {"type": "http", "method": "POST", "path": URL, "headers": [HOST]}
    communicator = ApplicationCommunicator(with_push(django), asked)
    await communicator.send_input({"type": "http.request", "body": b"{", "more_body": True})
    await communicator.send_input({"type": "http.disconnect"})
    await communicator.wait(10)
    assert communicator.output_queue.empty()


async def test_another_path_can_be_given() -> None:
    application = with_push(django, path="/elsewhere/")
    communicator = ApplicationCommunicator(
        application, {"type": "http", "method": "GET", "path": "/elsewhere/", "headers": [HOST]}
    )
    await communicator.send_input({"type": "http.request"})
    assert (await communicator.receive_output(10))["status"] == 405


@override_settings(ROOT_URLCONF=())
def test_without_the_url_it_says_what_to_do() -> None:
    with pytest.raises(ImproperlyConfigured, match="path="):
        with_push(django)

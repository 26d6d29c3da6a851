"""The push view: what each kind of delivery is answered, and what the rows say when it is."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import threading
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.db.backends.signals import connection_created
from django.test import AsyncClient, Client
from django.urls import reverse
from django.utils import timezone

from i3tasks.core.envelope import Envelope
from i3tasks.engine import push as push_engine
from i3tasks.engine.gateway import writer
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store.pauses import pause, resume
from tests.shop.flows import note
from tests.shop.models import Order
from tests.shop.tasks import add, fail, pushed
from tests.support.rigs import NotingPublisher

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("sent", "no_recent_pass", "pushed_by_default"),
]

PUSHES = 800
URL = reverse("i3tasks-push")
BEAT = reverse("i3tasks-beat")
FACTS = [
    "task_execution_id",
    "task_execution_try_id",
    "try_number",
    "asked_at",
    "started_at",
    "finished_at",
    "is_completed",
    "is_success",
    "result",
]


@pytest.fixture
def no_recent_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """No dispatcher pass was made in this process so far."""
    monkeypatch.setattr(push_engine, "_dispatcher", None)


def wrapped(data: bytes, **message: Any) -> dict[str, Any]:
    """The body of a push request."""
    facts = {"messageId": "7", "publishTime": timezone.now().isoformat(), "attributes": {"encoding": "utf-8"}}
    return {"message": {"data": base64.b64encode(data).decode(), **facts, **message}, "subscription": "s"}


def message_of(task_try: TaskExecutionTry, **message: Any) -> dict[str, Any]:
    return wrapped(Envelope(task_try.task_execution_id, task_try.pk, "tests.shop.tasks", "add").to_bytes(), **message)


async def post(body: Any, client: AsyncClient | None = None) -> Any:
    text = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return await (client or AsyncClient()).post(URL, text, content_type="application/json")


async def enqueued(task: Any, *args: Any) -> TaskExecutionTry:
    return (await task.adelay(*args)).task_execution_try


async def row(task_try: TaskExecutionTry) -> Any:
    return await TaskExecutionTry.objects.select_related("task_execution", "result").aget(pk=task_try.pk)


def iso(instant: Any) -> str:
    """As Django's JSON shows it: to the millisecond."""
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --------------------------------------------------------------------------------------------- good deliveries


async def test_a_success_answers_the_documented_body() -> None:
    task_try = await enqueued(pushed, "hello")
    response = await post(message_of(task_try))
    ended = await row(task_try)
    assert response.status_code == 200
    assert list(response.json()) == ["status", "result"]
    assert list(response.json()["result"]) == FACTS
    assert response.json() == {
        "status": "ok",
        "result": {
            "task_execution_id": task_try.task_execution_id,
            "task_execution_try_id": task_try.pk,
            "try_number": 1,
            "asked_at": iso(ended.asked_at),
            "started_at": iso(ended.started_at),
            "finished_at": iso(ended.finished_at),
            "is_completed": True,
            "is_success": True,
            "result": "hello",
        },
    }


async def test_a_failure_with_retries_left_answers_ok_with_the_next_try() -> None:
    task_try = await enqueued(fail)
    response = await post(message_of(task_try))
    following = await TaskExecutionTry.objects.aget(try_number=2)
    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    result = response.json()["result"]
    assert (result["task_execution_try_id"], result["try_number"]) == (following.pk, 2)
    assert (result["is_completed"], result["started_at"], result["result"]) == (False, None, None)


async def test_a_failure_without_retries_answers_200_bad() -> None:
    task_try = await enqueued(fail.using(max_retries=0), "broken pipe")
    response = await post(message_of(task_try))
    assert response.status_code == 200
    assert response.json()["status"] == "bad"
    assert "broken pipe" in response.json()["error"]
    assert (await row(task_try)).is_completed


async def test_a_duplicate_says_that_nothing_was_run() -> None:
    """And not what the try returned, which only the request that ran it is told."""
    task_try = await enqueued(add, 1, 2)
    assert (await post(message_of(task_try))).json()["result"]["result"] == 3
    again = await post(message_of(task_try))
    assert (again.status_code, again.json()) == (200, {"status": "bad", "error": "nothing was run: completed"})


async def test_pushes_open_a_handful_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through Django's own handler, which gives each request a thread, and so a connection, for its queries."""
    monkeypatch.setattr(writer._thread, "_idle_seconds", lambda: 1.0)  # as in production, but shorter
    tries = [await enqueued(add, number, 1) for number in range(PUSHES)]
    opened: list[str] = []

    def note(connection: Any, **_: Any) -> None:
        opened.append(threading.current_thread().name)

    connection_created.connect(note)
    try:
        for at in range(0, PUSHES, 100):
            results = await asyncio.gather(*(pushed_to_asgi(message_of(task_try)) for task_try in tries[at : at + 100]))
            assert [facts["result"]["result"] for facts in results] == list(range(at + 1, at + 101))
            again = await asyncio.gather(*(pushed_to_asgi(message_of(task_try)) for task_try in tries[at : at + 5]))
            assert {facts["error"] for facts in again} == {"nothing was run: completed"}
    finally:
        connection_created.disconnect(note)
        await asyncio.to_thread(writer.close, 10)
    print(f"{PUSHES} pushes opened {len(opened)} connections: {Counter(opened)}")
    assert len(opened) <= PUSHES // 100, "threads that were idle for a moment on a slow machine open theirs again"


async def pushed_to_asgi(body: Any) -> Any:
    """POST through a real ASGI handler; the answer's JSON."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": URL,
        "headers": [(b"content-type", b"application/json"), (b"host", b"testserver")],
        "query_string": b"",
    }
    request = ApplicationCommunicator(ASGIHandler(), scope)
    await request.send_input({"type": "http.request", "body": json.dumps(body).encode()})
    assert (await request.receive_output(30))["status"] == 200
    answer = json.loads((await request.receive_output(30))["body"])
    await request.wait()
    return answer


async def test_duplicates_at_the_same_time_run_the_body_once() -> None:
    task_try = await enqueued(note, "once")
    responses = await asyncio.gather(*(post(message_of(task_try)) for _ in range(8)))
    assert {response.status_code for response in responses} == {200}
    ran = [response.json()["result"] for response in responses if response.json()["status"] == "ok"]
    assert [facts["is_completed"] for facts in ran] == [True]
    assert [order.name async for order in Order.objects.all()] == ["once"]
    assert (await row(task_try)).is_success
    assert await TaskExecutionTry.objects.acount() == 1


async def test_no_csrf_token_is_needed() -> None:
    task_try = await enqueued(add, 1, 2)
    response = await post(message_of(task_try), AsyncClient(enforce_csrf_checks=True))
    assert response.json()["status"] == "ok"


async def test_old_keys_of_pubsub_and_nanoseconds_are_understood() -> None:
    body = message_of(await enqueued(add, 1, 2))
    body["message"]["publish_time"] = "2026-01-02T03:04:05.123456789Z"
    body["message"]["message_id"] = body["message"].pop("messageId")
    del body["message"]["publishTime"], body["message"]["attributes"]
    assert (await post(body)).json()["status"] == "ok"


@pytest.mark.parametrize("url", [URL, BEAT])
@pytest.mark.parametrize("method", ["get", "put", "delete"])
async def test_only_post(url: str, method: str) -> None:
    assert (await getattr(AsyncClient(), method)(url)).status_code == 405


# -------------------------------------------------------------------------------------------- bad deliveries


def _envelope(**changes: Any) -> bytes:
    meta = {"bind": False, "encoding": "utf-8", "module_name": "antigravity", "func_name": "fly"}
    meta.update({"task_execution_id": 1, "task_execution_try_id": 1, **changes})
    return json.dumps({"args": [], "kwargs": {}, "meta_info": {k: v for k, v in meta.items() if v != ...}}).encode()


MALFORMED: dict[str, Any] = {
    "nothing": b"",
    "no JSON": b"{",
    "no text": b"\xff\xfe{}",
    "a list": [],
    "a number": 7,
    "null": None,
    "no message": {},
    "message is null": {"message": None},
    "message is text": {"message": "hi"},
    "message is a list": {"message": [1]},
    "data is null": {"message": {"data": None}},
    "data is a number": {"message": {"data": 5}},
    "data is no base64": {"message": {"data": "%%%"}},
    "data is not ASCII": {"message": {"data": "ü"}},
    "no data": {"message": {}},
    "attributes are a list": wrapped(_envelope(), attributes=["x"]),
    "attributes are numbers": wrapped(_envelope(), attributes={"encoding": 1}),
    "no such encoding": wrapped(_envelope(), attributes={"encoding": "klingon"}),
    "an encoding with NUL": wrapped(_envelope(), attributes={"encoding": "utf\x008"}),
    "another encoding": wrapped("ü".encode("latin-1")),
    "data is no JSON": wrapped(b"hello"),
    "data is a list": wrapped(b"[]"),
    "deep data": wrapped(b"[" * 100_000),
    "deep request": b'{"message":' + b"[" * 100_000,
    "a number without end": wrapped(b'{"meta_info": ' + b"9" * 5000 + b"}"),
    "no meta_info": wrapped(b"{}"),
    "meta_info is a list": wrapped(b'{"meta_info": []}'),
    "no id": wrapped(_envelope(task_execution_try_id=...)),
    "id is text": wrapped(_envelope(task_execution_try_id="1")),
    "id is true": wrapped(_envelope(task_execution_try_id=True)),
    "id is 0": wrapped(_envelope(task_execution_id=0)),
    "id is negative": wrapped(_envelope(task_execution_id=-1)),
    "id is too large": wrapped(_envelope(task_execution_id=2**63)),
    "id is a fraction": wrapped(_envelope(task_execution_id=1.5)),
    "no name": wrapped(_envelope(func_name=...)),
    "name is null": wrapped(_envelope(module_name=None)),
    "name is empty": wrapped(_envelope(module_name="")),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_request_is_400_in_json_and_an_event(name: str, events: list[str]) -> None:
    response = await post(MALFORMED[name])
    assert response.status_code == 400
    assert response.json()["status"] == "bad"
    assert len(response.json()["error"]) > 10
    assert "envelope_refused" in events
    assert "antigravity" not in sys.modules, "nothing that a message names is imported"


async def test_a_request_over_djangos_limit_is_a_4xx_in_json(events: list[str], settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    response = await post(b" " * 2000)
    assert response.status_code == 413
    assert response.json()["status"] == "bad"
    assert "envelope_refused" in events


async def test_a_young_unknown_try_is_404_and_nothing_is_imported() -> None:
    response = await post(wrapped(_envelope(task_execution_try_id=10**9)))
    assert (response.status_code, response.json()["status"]) == (404, "bad")
    assert "antigravity" not in sys.modules


async def test_an_unknown_try_without_a_time_counts_as_young() -> None:
    response = await post(wrapped(_envelope(task_execution_try_id=10**9), publishTime="yesterday"))
    assert response.status_code == 404


@pytest.mark.parametrize("published", ["2020-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "2020-01-01T00:00:00"])
async def test_an_old_unknown_try_is_200_with_an_event(published: str, events: list[str]) -> None:
    response = await post(wrapped(_envelope(task_execution_try_id=10**9), publishTime=published))
    assert (response.status_code, response.json()["status"]) == (200, "bad")
    assert "try_unknown" in events


async def test_the_module_in_a_message_is_not_imported_when_its_row_names_another() -> None:
    task_try = await enqueued(add, 4, 5)
    body = wrapped(_envelope(task_execution_id=task_try.task_execution_id, task_execution_try_id=task_try.pk))
    assert (await post(body)).json()["result"]["result"] == 9
    assert "antigravity" not in sys.modules


async def test_a_stored_module_outside_the_installed_apps_is_not_imported() -> None:
    task_try = await enqueued(add, 4, 5)
    await TaskExecution.objects.aupdate(task_path="antigravity", task_name="fly")
    response = await post(message_of(task_try))
    assert (response.status_code, response.json()["result"]["started_at"]) == (200, None), "put off by a minute"
    assert "antigravity" not in sys.modules


# ----------------------------------------------------------------------------------------------- who may push


@pytest.fixture
def off_the_emulator(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    settings.PUBSUB_CONFIG = {"PROJECT_ID": "real"}
    return settings


@pytest.mark.parametrize("url", [URL, BEAT])
async def test_off_an_emulator_every_request_is_refused(off_the_emulator: Any, url: str, events: list[str]) -> None:
    task_try = await enqueued(add, 1, 2)
    response = await AsyncClient().post(url, json.dumps(message_of(task_try)), content_type="application/json")
    assert (response.status_code, response.json()["status"]) == (403, "bad")
    assert events == ["execution_enqueued", "request_denied"]
    assert (await TaskExecutionTry.objects.aget()).started_at is None


async def test_allow_unverified_lets_everybody_in(off_the_emulator: Any) -> None:
    off_the_emulator.I3TASKS = replace(off_the_emulator.I3TASKS, allow_unverified=True)
    assert (await post(message_of(await enqueued(add, 1, 2)))).json()["status"] == "ok"
    assert (await AsyncClient().post(BEAT)).json() == {"status": "ok"}


# ------------------------------------------------------------------------------------------------ transactions


@pytest.fixture
def atomic_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    for facts in connections.settings.values():
        monkeypatch.setitem(facts, "ATOMIC_REQUESTS", True)


@pytest.mark.usefixtures("atomic_requests")
async def test_atomic_requests_on_every_database_leave_push_and_beat_alone() -> None:
    assert (await post(message_of(await enqueued(add, 1, 2)))).json()["status"] == "ok"
    assert (await AsyncClient().post(BEAT)).json() == {"status": "ok"}


# ------------------------------------------------------------------------------------------------- dispatching


async def test_a_push_ends_with_a_dispatcher_pass(sent: NotingPublisher) -> None:
    task_try, due = await enqueued(add, 1, 2), await enqueued(add, 3, 4)
    await TaskExecutionTry.objects.filter(pk=due.pk).aupdate(dispatch_at=timezone.now())
    sent.messages.clear()
    await post(message_of(task_try))
    assert sent.try_ids == [due.pk]


async def test_not_every_push_makes_a_pass(sent: NotingPublisher) -> None:
    await post(message_of(await enqueued(add, 1, 2)))
    due = await enqueued(add, 3, 4)
    await TaskExecutionTry.objects.filter(pk=due.pk).aupdate(dispatch_at=timezone.now())
    sent.messages.clear()
    await post(message_of(await enqueued(add, 1, 2)))
    assert due.pk not in sent.try_ids


async def test_a_beat_publishes_what_is_due_each_time(sent: NotingPublisher) -> None:
    for _ in range(2):
        due = await enqueued(add, 3, 4)
        await TaskExecutionTry.objects.filter(pk=due.pk).aupdate(dispatch_at=timezone.now())
        sent.messages.clear()
        assert (await AsyncClient().post(BEAT)).json() == {"status": "ok"}
        assert sent.try_ids == [due.pk]


async def test_a_beat_publishes_nothing_early(sent: NotingPublisher) -> None:
    await enqueued(add.using(run_after=timedelta(hours=1)), 1, 2)
    await AsyncClient().post(BEAT)
    assert sent.messages == []


# -------------------------------------------------------------------------------------------------------- WSGI


def test_under_wsgi_it_works_too(sent: NotingPublisher) -> None:
    body = json.dumps(message_of(add.delay(1, 2).task_execution_try))
    response = Client(enforce_csrf_checks=True).post(URL, body, content_type="application/json")
    assert response.json()["result"]["result"] == 3
    assert Client().post(BEAT).json() == {"status": "ok"}
    assert Client().get(URL).status_code == 405


def test_under_wsgi_requests_leave_no_threads_and_no_loops_behind() -> None:
    def request() -> None:
        body = json.dumps(message_of(add.delay(1, 2).task_execution_try))
        assert Client().post(URL, body, content_type="application/json").status_code == 200

    for _ in range(3):  # until each thread of the process has been begun
        request()
    before = threading.active_count()
    for _ in range(6):
        request()
    assert threading.active_count() <= before + 2  # some threads end when they are idle, and come back
    assert len(push_engine._engines) <= 2


async def test_a_beat_publishes_again_what_a_quiet_push_queue_lost(sent: NotingPublisher, events: list[str]) -> None:
    task_try = await enqueued(pushed, "hello")
    [message.on_done([message], None) for message in sent.messages]
    await asyncio.to_thread(writer.flush, 10)
    assert (await row(task_try)).publish_count == 1
    long_ago = (await row(task_try)).dispatch_at - timedelta(minutes=2)
    await TaskExecutionTry.objects.aupdate(dispatch_at=long_ago)
    sent.messages.clear()
    assert (await AsyncClient().post(BEAT)).json() == {"status": "ok"}
    assert sent.try_ids == [task_try.pk]
    assert "push_queue_quiet" in events
    sent.messages.clear()
    await AsyncClient().post(BEAT)
    assert sent.messages == [], "this process has looked just now"


# ------------------------------------------------------------------------------------------------ other tries


async def test_a_try_of_a_pull_queue_is_not_run(events: list[str]) -> None:
    """Its workers run it: another pool, other limits, perhaps another network."""
    task_try = await enqueued(add.using(queue_name="heavy"), 1, 2)
    response = await post(message_of(task_try))
    assert (response.status_code, response.json()["status"]) == (404, "bad")
    assert (await TaskExecutionTry.objects.aget(pk=task_try.pk)).started_at is None


async def test_no_result_is_told_to_a_request_that_did_not_run_the_try() -> None:
    """A wrong execution, a second delivery: neither is a way around `status_token`."""
    task_try = await enqueued(pushed, "the secret")
    assert "the secret" in (await post(message_of(task_try))).text
    other = await enqueued(pushed, "another")
    for execution_id in (task_try.task_execution_id, other.task_execution_id, 10**9, -1):
        envelope = Envelope(execution_id, task_try.pk, "tests.shop.tasks", "pushed")
        assert "the secret" not in (await post(wrapped(envelope.to_bytes()))).text
    assert (await TaskExecutionTry.objects.aget(pk=other.pk)).started_at is None


# ----------------------------------------------------------------------------------------------- a paused queue


async def test_a_push_to_a_paused_queue_is_answered_and_its_try_comes_back(sent: NotingPublisher) -> None:
    task_try = await enqueued(add, 1, 2)
    sent.messages.clear()
    await sync_to_async(pause)("default")
    response = await post(message_of(task_try))
    assert (response.status_code, response.json()["error"]) == (200, "nothing was run: paused")
    assert (await row(task_try)).started_at is None
    assert sent.try_ids == [], "its request ended with a dispatcher pass"
    await sync_to_async(resume)("default")
    await AsyncClient().post(BEAT)
    assert sent.try_ids == [task_try.pk]
    assert (await post(message_of(task_try))).json()["result"]["result"] == 3

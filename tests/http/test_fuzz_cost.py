"""What strangers' requests cost: no more work than a plain request of the same size, short answers, and no memory."""

from __future__ import annotations

import base64
import gc
import json
import logging
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db.backends.utils import CursorWrapper
from django.test import Client
from django.urls import reverse

from i3tasks import schedule_task
from i3tasks.broker.auth.verification import forget_certificates
from i3tasks.models import TaskExecution
from i3tasks.types import PushQueue
from tests.http.test_admin_answers import ADD, MODELS, listed
from tests.http.test_admin_schedules import FORM
from tests.shop.tasks import add
from tests.support.oidc import PUSHER, segment, serving

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent", "silent")]

Ask = Callable[[], Any]
SIZE = 300_000
"""Characters of a hostile request. A walk over them in quadratic time takes seconds."""
URL_SIZE = 60_000
"""Of what stands in an address or a header: the most that web servers take."""
MOST_TIMES = 30
"""How much more processor time a hostile request may take than a plain one of its size."""
MOST_STATEMENTS = 25
LONGEST_ANSWER = 2_000
LONGEST_PAGE = 100_000
LONGEST_LOG = 10_000
ROUND = 108
BULK = 50_000
"""Characters that each request of the round brings."""
MOST_KEPT = 300_000
"""Bytes that may be left after the round: half of what one of its nine kinds brings."""
PUSH, BEAT, HEALTH = reverse("i3tasks-push"), reverse("i3tasks-beat"), reverse("i3tasks-health")
STATUS = reverse("i3tasks-status", args=[1]).removesuffix("1/")


@pytest.fixture
def silent() -> Iterator[None]:
    """No log records that pytest would keep; a test that looks at them turns them on again."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SQL that any thread of this process runs."""
    seen: list[str] = []
    real: Any = CursorWrapper._execute_with_wrappers

    def noting(self: CursorWrapper, sql: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(sql[:80])
        return real(self, sql, *args, **kwargs)

    monkeypatch.setattr(CursorWrapper, "_execute_with_wrappers", noting)
    return seen


@pytest.fixture
def admin() -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.create_superuser("root"))
    return client


def post(url: str, body: str | bytes = "", **headers: str) -> Any:
    return Client(raise_request_exception=False).post(url, body, content_type="application/json", headers=headers)


def get(url: str, data: dict[str, str] | None = None, **headers: str) -> Any:
    return Client(raise_request_exception=False).get(url, data, headers=headers)


def pushed(data: str | bytes, **fields: Any) -> str:
    content = data.encode() if isinstance(data, str) else data
    return json.dumps({"message": {"data": base64.b64encode(content).decode(), **fields}})


def envelope(**fields: Any) -> str:
    """An envelope of a try that is not there."""
    names = {"module_name": "shop.tasks", "func_name": "add"}
    facts = {**names, "task_execution_id": 1, "task_execution_try_id": 1, **fields}
    return json.dumps({"args": [], "kwargs": {}, "meta_info": facts})


def nested(size: int) -> str:
    return "[" * (size // 2) + "]" * (size // 2)


def seconds(ask: Ask) -> float:
    """The processor time that it takes, which other processes of the machine do not change."""
    started = time.process_time()
    ask()
    return time.process_time() - started


def costs_no_more(hostile: Ask, plain: float) -> None:
    took = [seconds(hostile)]
    while took[-1] > MOST_TIMES * plain and len(took) < 3:  # a garbage collection may fall into one of them
        took.append(seconds(hostile))
    assert min(took) <= MOST_TIMES * plain, f"{took} seconds; {plain} for a plain request"


MESSAGES: dict[str, str] = {
    "brackets": nested(SIZE),
    "unclosed brackets": "[" * SIZE,
    "objects": '{"a":' * (SIZE // 5),
    "digits": '{"message": ' + "9" * SIZE + "}",
    "a float": '{"message": 0.' + "9" * SIZE + "}",
    "an exponent": '{"message": 1e' + "9" * SIZE + "}",
    "half characters": '{"message": "' + "\\ud800" * (SIZE // 6) + '"}',
    "quotes": '{"message": "' + '\\"' * (SIZE // 2) + '"}',
    "keys": json.dumps({"message": {str(key): key for key in range(SIZE // 20)}}),
    "spaces": " " * SIZE,
    "padding": json.dumps({"message": {"data": "=" * SIZE}}),
    "base64 with blanks": json.dumps({"message": {"data": "QUJD " * (SIZE // 5)}}),
    "no text": pushed(b"\xff" * SIZE),
    "nested data": pushed(nested(SIZE)),
    "data of digits": pushed("9" * SIZE),
    "punycode": pushed("a" * SIZE, attributes={"encoding": "punycode"}),
    "idna": pushed("xn--" + "a" * SIZE, attributes={"encoding": "idna"}),
    "a long codec": pushed(envelope(), attributes={"encoding": "x" * SIZE}),
    "many attributes": pushed(envelope(), attributes={str(key): "x" for key in range(SIZE // 20)}),
    "a long attribute": pushed(envelope(), attributes={"traceparent": "0" * SIZE}),
    "a long message id": pushed(envelope(), messageId="x" * SIZE),
    "a list as message id": pushed(envelope(), messageId=[0] * (SIZE // 3)),
    "a long time": pushed(envelope(), publishTime="2026-" * (SIZE // 5)),
    "a long name": pushed(envelope(module_name="a." * (SIZE // 2))),
    "a list as name": pushed(envelope(func_name=[0] * (SIZE // 3))),
    "an object as id": pushed(envelope(task_execution_id={str(key): key for key in range(SIZE // 20)})),
    "a long id": pushed(envelope(task_execution_try_id=int("9" * 4000))),
}
HEADERS = ["0" * URL_SIZE, "2026-01-01T" * (URL_SIZE // 11), "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "9" * 4000]
QUERIES = {
    "one long value": "token=" + "x" * URL_SIZE,
    "many values": "token=x&" * (URL_SIZE // 8),
    "many names": "&".join(f"a{number}" for number in range(URL_SIZE // 6)),
    "percent signs": "token=" + "%" * URL_SIZE,
    "no text": "token=" + "%ff" * (URL_SIZE // 3),
}
SEARCHES = [
    {"q": "a " * (URL_SIZE // 2)},
    {"q": "a " * 900},
    {"q": "a " * 50},
    {"q": '"' * URL_SIZE},
    {"q": '"\\' * (URL_SIZE // 2)},
    {"q": "%_" * 300},
    {"o": "1." * (URL_SIZE // 2)},
    {"o": "1." * 900},
    {"p": "9" * 1900},
    {"queue": "x" * URL_SIZE},
    {"id__in": "1," * (URL_SIZE // 2)},
    {"e": "1", "q": "9" * URL_SIZE},
]


@pytest.mark.parametrize("body", MESSAGES.values(), ids=MESSAGES)
def test_a_push(body: str, statements: list[str], caplog: pytest.LogCaptureFixture) -> None:
    plain = pushed(envelope(padding="x" * SIZE))
    assert post(PUSH, plain).status_code == 404
    statements.clear()
    logging.disable(logging.NOTSET)
    caplog.clear()
    answer = post(PUSH, body)
    assert answer.status_code in (400, 404)
    assert len(answer.content) <= LONGEST_ANSWER
    assert len(statements) <= MOST_STATEMENTS, statements
    assert sum(len(repr(vars(record))) for record in caplog.records) <= LONGEST_LOG
    logging.disable()
    costs_no_more(lambda: post(PUSH, body), seconds(lambda: post(PUSH, plain)))


def test_a_token_of_a_push(settings: Any, monkeypatch: pytest.MonkeyPatch, statements: list[str]) -> None:
    monkeypatch.delenv("PUBSUB_EMULATOR_HOST", raising=False)
    settings.PUBSUB_CONFIG = {"PROJECT_ID": "real"}
    queues = (PushQueue("push", "push", "https://shop.example.com/i3/tasks-push/"),)
    settings.I3TASKS = replace(settings.I3TASKS, other_queues=queues, service_account=PUSHER)
    head = segment({"alg": "RS256", "kid": "none"})
    tokens = ["x" * URL_SIZE, "." * URL_SIZE, f"{head}.{'.' * URL_SIZE}", f"{head}.{'=' * URL_SIZE}.x"]
    tokens.append(f"{segment({'alg': 'RS256', 'kid': 'x' * (URL_SIZE // 2)})}.x.x")
    tokens.append(f"{base64.urlsafe_b64encode(nested(URL_SIZE // 2).encode()).decode()}.x.x")
    with serving() as issuer:
        settings.I3TASKS = replace(settings.I3TASKS, certificates_url=issuer.url)
        forget_certificates()
        assert post(PUSH, Authorization=f"Bearer {head}.x.x").status_code == 401
        plain = seconds(lambda: post(PUSH, Authorization=f"Bearer {head}.x.x"))
        statements.clear()
        for token in tokens:
            ask = partial(post, PUSH, Authorization=f"Bearer {token}")
            answer = ask()
            assert (answer.status_code, answer.content[LONGEST_ANSWER:]) == (401, b""), token[:100]
            costs_no_more(ask, plain)
    assert len(statements) <= MOST_STATEMENTS, statements


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header[:20])
def test_a_beat(header: str, statements: list[str]) -> None:
    schedule_task(add, "0 0 1 1 *", name="yearly", args=[1, 2], catch_up="all")
    assert post(BEAT, "x" * SIZE).status_code == 200
    plain = seconds(lambda: post(BEAT, "x" * SIZE))
    ask = partial(post, BEAT, nested(SIZE), **{"X-CloudScheduler-ScheduleTime": header})
    statements.clear()
    answer = ask()
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert len(statements) <= MOST_STATEMENTS, statements
    assert not TaskExecution.objects.exists()
    costs_no_more(ask, plain)


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "open"])
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_monitoring(query: str, guarded: bool, settings: Any, statements: list[str]) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, health_token="of health" if guarded else None)
    allowed = {HEALTH: (400, 401) if guarded else (200,), f"{STATUS}1/": (400, 401) if guarded else (404,)}
    for url, codes in allowed.items():
        get(url)
        plain = seconds(partial(get, f"{url}?a={'%20' * (URL_SIZE // 3)}"))
        statements.clear()
        answer = get(f"{url}?{query}")
        assert answer.status_code in codes, answer.content
        assert len(answer.content) <= LONGEST_ANSWER
        assert len(statements) <= MOST_STATEMENTS, statements
        costs_no_more(partial(get, f"{url}?{query}"), plain)


@pytest.mark.parametrize("key", ["9" * 4000, "9" * URL_SIZE, "0" * URL_SIZE, "a-" * (URL_SIZE // 2)], ids=len)
def test_a_key_of_a_status(key: str, statements: list[str]) -> None:
    assert get(f"{STATUS}1/").status_code == 404
    statements.clear()
    assert get(f"{STATUS}{key}/").status_code == 404
    assert len(statements) <= MOST_STATEMENTS, statements
    costs_no_more(lambda: get(f"{STATUS}{key}/"), seconds(lambda: get(f"{STATUS}{'a' * URL_SIZE}/")))


@pytest.mark.parametrize("model", MODELS)
def test_a_list_of_the_admin(model: str, admin: Client, statements: list[str]) -> None:
    assert admin.get(listed(model)).status_code == 200
    plain = seconds(lambda: admin.get(listed(model)))
    for search in SEARCHES:
        statements.clear()
        answer = admin.get(listed(model), search)
        assert answer.status_code in (200, 302, 400), search
        assert len(answer.content) <= LONGEST_PAGE, search
        assert len(statements) <= MOST_STATEMENTS, statements
        costs_no_more(partial(admin.get, listed(model), search), plain)


@pytest.mark.parametrize(
    "fields",
    [
        {"cron": "*," * (SIZE // 2)},
        {"cron": "0-59/1," * (SIZE // 7) + "0 * * * *"},
        {"cron": "* " * (SIZE // 2)},
        {"cron": "9" * SIZE},
        {"time_zone": "../" * (SIZE // 3)},
        {"name": "x" * SIZE},
        {"task": "a." * (SIZE // 2)},
        {"args": nested(SIZE)},
        {"args": "[" + "9" * SIZE + "]"},
        {"args": "[" + "[]," * (SIZE // 30) + "[]]"},
        {"kwargs": json.dumps({str(key): key for key in range(SIZE // 20)})},
        {"queue_name": "x" * SIZE},
        {"catch_up": "x" * SIZE},
    ],
    ids=lambda fields: " ".join(f"{name}={value[:8]}" for name, value in fields.items()),
)
def test_a_form_of_the_admin(fields: dict[str, str], admin: Client, statements: list[str]) -> None:
    def ask(changed: dict[str, str]) -> Any:
        return admin.post(reverse(ADD), {**FORM, **changed})

    plain = {"description": "x" * SIZE, "name": ""}
    assert ask(plain).status_code == 200
    statements.clear()
    answer = ask(fields)
    assert answer.status_code == 200
    assert "errorlist" in answer.content.decode()
    assert len(statements) <= MOST_STATEMENTS, statements
    costs_no_more(lambda: ask(fields), seconds(lambda: ask(plain)))


def test_no_memory_is_kept(admin: Client) -> None:
    """Every request brings something that no other has brought: what is kept of it adds up."""
    schedule_task(add, "0 0 1 1 *", name="yearly", args=[1, 2])
    bulk = "x" * BULK

    def requests(number: int) -> list[Ask]:
        new = f"{number}{bulk}"
        search = f"{number}{bulk[:1000]}"
        return [
            lambda: post(PUSH, new),
            lambda: post(PUSH, pushed(envelope(), attributes={"encoding": new})),
            lambda: post(PUSH, pushed(envelope(), attributes={new: new}, messageId=new)),
            lambda: post(PUSH, pushed(envelope(module_name=f"m{number}", task_execution_id=number + 1, padding=new))),
            lambda: post(BEAT, new, **{"X-CloudScheduler-ScheduleTime": new}),
            # As parameters: Python's urlsplit, of which the test client makes use, keeps the last addresses.
            lambda: get(HEALTH, {"token": new}),
            lambda: get(f"{STATUS}{number + 1}/", {new: new}, Authorization=f"Bearer {new}"),
            lambda: admin.get(listed(MODELS[number % len(MODELS)]), {"q": search, "queue": search[:100]}),
            lambda: admin.post(reverse(ADD), {**FORM, "time_zone": new}),
        ]

    def send(numbers: range) -> int:
        for number in numbers:
            kinds = requests(number)
            kinds[number % len(kinds)]()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = send(range(18))
        grown = send(range(18, 18 + ROUND)) - before
    finally:
        tracemalloc.stop()
    assert grown <= MOST_KEPT

"""Strangers' requests: whatever they hold, no answer is a server's error, and nothing runs or shows that should not."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from i3tasks import schedule_task
from i3tasks.core.envelope import Envelope
from i3tasks.models import ScheduleState, TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskSchedule
from tests.http.test_admin_answers import MODELS, listed
from tests.http.test_admin_schedules import FORM
from tests.shop.tasks import add
from tests.support.exploring import examples
from tests.support.history import a_try

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

SECRET = "the-secret-result"
FEW = settings(max_examples=examples(40), suppress_health_check=list(HealthCheck))
FILTERS = ["q", "o", "p", "queue", "outcome", "state", "id", "created_at", "asked_at", "status", "task_name", "_popup"]
FILTERS += ["task_args", "result", "task_execution__options", "task_group", "claim_token", "enabled__exact"]
MOST_QUERIES = 40
"""Of one page of the admin, its session and user included."""

TEXT = st.text(max_size=30) | st.sampled_from(["\x00", "9" * 5000, "%", "'", "\u202e", "0001-01-01", "9999-12-31", "("])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
DEEP = st.sampled_from(["[" * 5000, "[" * 5000 + "]" * 5000, '{"a":' * 3000 + "1" + "}" * 3000, '["\\ud800"]', "1e999"])
JSON_TEXTS = JSON_VALUES.map(json.dumps) | DEEP | TEXT
ATTRIBUTES = st.dictionaries(TEXT, JSON_VALUES, max_size=3) | st.sampled_from(
    [{"encoding": "punycode"}, {"encoding": "idna"}, {"encoding": "x" * 3000}, {"encoding": "utf-8"}]
)
IDS = st.integers(-(2**70), 2**70) | st.integers(0, 3) | JSON_VALUES


@pytest.fixture
def finished_try() -> TaskExecutionTry:
    """A try whose result is not a stranger's to see."""
    return a_try("success", result=SECRET)


@pytest.fixture
def waiting_try() -> Iterator[TaskExecutionTry]:
    """A try of a pull queue, which no push may start."""
    task_try = add.using(queue_name="heavy").delay(1, 2).task_execution_try
    yield task_try
    assert TaskExecutionTry.objects.get(pk=task_try.pk).started_at is None


def post(url: str, body: Any, **headers: str) -> Any:
    return Client(raise_request_exception=False).post(url, body, content_type="application/json", headers=headers)


@FEW
@given(st.binary(max_size=50) | JSON_TEXTS | st.builds(lambda inner: json.dumps({"message": inner}), JSON_VALUES))
def test_any_body_of_a_push(waiting_try: TaskExecutionTry, body: Any) -> None:
    assert post(reverse("i3tasks-push"), body).status_code in (400, 413)


@FEW
@given(st.data())
def test_any_message_of_a_push(
    finished_try: TaskExecutionTry, waiting_try: TaskExecutionTry, data: st.DataObject
) -> None:
    known = st.sampled_from([finished_try.pk, waiting_try.pk])
    facts = {"task_execution_id": data.draw(IDS | known), "task_execution_try_id": data.draw(IDS | known)}
    names = {"module_name": data.draw(TEXT), "func_name": data.draw(TEXT)}
    content = data.draw(st.sampled_from([{"meta_info": {**facts, **names}}, facts, {"meta_info": facts, "args": "x"}]))
    message = {
        "data": base64.b64encode(json.dumps(content).encode()).decode(),
        "attributes": data.draw(ATTRIBUTES),
        "messageId": data.draw(JSON_VALUES),
        "publishTime": data.draw(JSON_VALUES),
    }
    answer = post(reverse("i3tasks-push"), json.dumps({"message": message}))
    assert answer.status_code < 500, answer.content
    assert SECRET not in answer.content.decode()


@FEW
@given(st.integers(-2, 2**40))
def test_a_known_try_with_any_execution(finished_try: TaskExecutionTry, execution_id: int) -> None:
    envelope = Envelope(execution_id, finished_try.pk, "tests.shop.tasks", "add").to_bytes()
    answer = post(reverse("i3tasks-push"), json.dumps({"message": {"data": base64.b64encode(envelope).decode()}}))
    assert answer.status_code < 500
    assert SECRET not in answer.content.decode()


@FEW
@given(
    st.datetimes().map(lambda instant: instant.isoformat() + "Z")
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
    | st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "1970-01-01T00:00:00Z"])
)
def test_any_time_of_a_beat(header: str) -> None:
    schedule_task(add, "* * * * *", name="often", args=[1, 2], catch_up="all")
    TaskExecution.objects.all().delete()
    headers = {"X-CloudScheduler-ScheduleTime": header}
    assert post(reverse("i3tasks-beat"), "", **headers).status_code == 200
    state = ScheduleState.objects.get(schedule_key="often")
    soon = timezone.now() + timedelta(minutes=2)
    assert (state.handled_until or state.first_seen) <= soon
    assert TaskExecution.objects.count() <= 2, "a new schedule has no slots of long ago"
    TaskSchedule.objects.all().delete()


@FEW
@given(token=TEXT, scheme=st.sampled_from(["Bearer ", "bearer ", "Basic ", "Bearer", ""]), in_header=st.booleans())
def test_any_token(finished_try: TaskExecutionTry, token: str, scheme: str, in_header: bool, settings: Any) -> None:
    guarded = replace(settings.I3TASKS, health_token="of health", status_token="of status")
    header = (scheme + token).encode("ascii", "ignore").decode().replace("\r", "").replace("\n", "")
    given_in = {"headers": {"Authorization": header}} if in_header else {"data": {"token": token}}
    with override_settings(I3TASKS=guarded):
        for url in (reverse("i3tasks-health"), reverse("i3tasks-status", args=[finished_try.task_execution_id])):
            answer = Client(raise_request_exception=False).get(url, **given_in)
            assert answer.status_code == 401
            assert answer.json() == {"status": "unauthorized"}


@FEW
@given(st.integers(0, 10**60) | TEXT | st.uuids())
def test_any_key_of_a_status(key: Any) -> None:
    base = reverse("i3tasks-status", args=[1]).removesuffix("1/")
    path = "".join(character if character.isalnum() else "%00" for character in str(key))[:2000]
    answer = Client(raise_request_exception=False).get(f"{base}{path}/")
    assert answer.status_code == 404


@pytest.mark.filterwarnings("ignore:DateTimeField .* received a naive datetime:RuntimeWarning")
@FEW
@given(st.data())
def test_any_filter_of_the_admin(finished_try: TaskExecutionTry, data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(MODELS))
    name = data.draw(st.sampled_from(FILTERS) | TEXT)
    end = data.draw(st.sampled_from(["", "__exact", "__gte", "__in", "__year", "__regex", "__isnull", "__id__exact"]))
    client = _admin()
    with CaptureQueriesContext(connection) as captured:
        answer = client.get(listed(model), {name + end: data.draw(TEXT | st.datetimes().map(lambda at: f"{at}+00:00"))})
    assert answer.status_code in (200, 302, 400)
    assert len(captured.captured_queries) <= MOST_QUERIES


@FEW
@given(st.data())
def test_any_schedule_in_the_form(data: st.DataObject) -> None:
    arguments = st.sampled_from(["args", "kwargs"])
    changed = {name: data.draw(JSON_TEXTS) for name in data.draw(st.sets(arguments, max_size=2))}
    other = st.sampled_from(["name", "task", "cron", "time_zone", "queue_name", "catch_up"])
    changed |= {name: data.draw(TEXT) for name in data.draw(st.sets(other, max_size=2))}
    answer = _admin().post(reverse("admin:i3tasks_taskschedule_add"), {**FORM, **changed})
    assert answer.status_code in (200, 302)
    assert answer.status_code == 200 or TaskSchedule.objects.count() == 1
    TaskSchedule.objects.all().delete()


def _admin() -> Client:
    client = Client(raise_request_exception=False)
    user = User.objects.filter(username="root").first() or User.objects.create_superuser("root")
    client.force_login(user)
    return client


def test_the_secret_is_there_to_be_shown(finished_try: TaskExecutionTry) -> None:
    assert TaskExecutionResult.objects.get().result == SECRET

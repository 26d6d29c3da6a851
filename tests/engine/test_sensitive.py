"""What a task declares sensitive is in no log, row of an error, page, answer or event."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import AsyncClient, Client

from i3tasks import chain, group, task
from i3tasks.engine.assembly import make_engine
from i3tasks.exceptions import TaskDefinitionError
from i3tasks.models import TaskExecution, TaskExecutionResult, TaskExecutionTry
from i3tasks.signals import TaskSignal, try_failed
from i3tasks.telemetry import CloudLoggingFormatter, subscribe
from tests.shop import isolated
from tests.support.rigs import delivery_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

CARD = "4111-1111-1111-1111"


class Declined(Exception):
    pass


@task(max_retries=1, sensitive=("card",))
def charge(order: int, card: Any) -> None:
    try:
        raise KeyError(card)
    except KeyError as error:
        raise Declined(f"order {order}: no card {card}") from error


@task(max_retries=0, sensitive=("card",))
async def acharge(order: int, card: Any) -> None:
    raise Declined(f"order {order}: no card {card}")


@pytest.fixture
def told() -> Iterator[list[str]]:
    """All that is logged, as text and as JSON, and what consumers of events are given."""
    lines: list[str] = []
    stream = io.StringIO()
    handlers = [logging.StreamHandler(stream), logging.StreamHandler(stream)]
    handlers[1].setFormatter(CloudLoggingFormatter())
    logger = logging.getLogger("i3tasks")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    for handler in handlers:
        logger.addHandler(handler)
    unsubscribe = subscribe(lambda event, facts: lines.append(repr(dict(facts))))
    yield lines
    unsubscribe()
    for handler in handlers:
        logger.removeHandler(handler)
    logger.setLevel(level)
    lines.append(stream.getvalue())


async def execute(task_try: TaskExecutionTry) -> None:
    engine = make_engine(concurrency=2, threads=1)
    try:
        await engine.executor.execute(delivery_of(task_try))
    finally:
        engine.pool.close()


@pytest.mark.parametrize("called", [charge, acharge, isolated.charge], ids=["sync", "async", "process"])
async def test_neither_rows_nor_logs_nor_events_quote_it(called: Any, told: list[str], caplog: Any) -> None:
    task_try = (await called.adelay(7, card=CARD)).task_execution_try
    await execute(task_try)
    ended = await TaskExecutionTry.objects.select_related("result").aget(pk=task_try.pk)
    assert ended.error_traceback is not None
    assert "order 7: no card [hidden]" in ended.error_traceback
    assert ended.result.result == "order 7: no card [hidden]"
    assert (await TaskExecution.objects.aget()).task_kwargs == {"card": CARD}, "the body gets it"
    assert any("no card [hidden]" in line for line in told)
    assert CARD not in f"{ended.error_traceback}{told}{caplog.text}"


async def test_the_last_error_has_its_traceback_in_the_log_and_no_exception_for_trackers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await execute((await acharge.adelay(7, CARD)).task_execution_try)
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is None
    line = json.loads(CloudLoggingFormatter().format(record))
    assert line["stack_trace"].startswith("Traceback (most recent call last)")
    assert "Declined: order 7: no card [hidden]\n" in line["stack_trace"]


async def test_arguments_are_logged_only_if_asked_for_and_without_the_sensitive_ones(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await execute((await charge.adelay(7, CARD)).task_execution_try)
    settings.I3TASKS = replace(settings.I3TASKS, log_arguments=True)
    await execute((await charge.adelay(7, card=CARD)).task_execution_try)
    asked = [getattr(record, "arguments", None) for record in caplog.records]
    assert asked == [None, "7, card='[hidden]'"]


def test_inline_callers_get_the_error_itself_and_receivers_of_signals_do_not() -> None:
    exceptions: list[Any] = []

    def note(exception: Any, **_: Any) -> None:
        exceptions.append(exception)

    signal: TaskSignal = try_failed
    signal.connect(note)
    try:
        with pytest.raises(Declined, match=CARD):
            acharge.sync_run(7, CARD)
    finally:
        signal.disconnect(note)
    assert exceptions == [None]
    assert TaskExecutionResult.objects.get().result == "order 7: no card [hidden]"


async def test_the_status_endpoint_and_command_hide_it(settings: Any) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, status_token="t" * 20)
    task_try = (await charge.adelay(7, CARD)).task_execution_try
    await execute(task_try)
    url = f"/i3/tasks-status/{task_try.task_execution_id}/"
    response = await AsyncClient().get(url, headers={"Authorization": f"Bearer {'t' * 20}"})
    assert response.json()["task"]["task_args"] == [7, "[hidden]"]
    assert CARD not in response.content.decode()
    stdout = io.StringIO()
    await sync_to_async(call_command)("i3tasks_status", str(task_try.task_execution_id), stdout=stdout)
    assert "charge(7, '[hidden]')" in stdout.getvalue()
    assert CARD not in stdout.getvalue()


def test_the_admin_hides_it_also_in_what_is_to_follow() -> None:
    User.objects.create_superuser("root", "root@example.com", "secret")
    client = Client()
    client.login(username="root", password="secret")
    chain(charge.s(1, CARD), charge.s(2, card=CARD)).delay()
    group([charge.s(3, CARD)]).then(charge.s(4, CARD)).delay()
    for execution in TaskExecution.objects.all():
        page = client.get(f"/admin/i3tasks/taskexecution/{execution.pk}/change/").content.decode()
        assert "[hidden]" in page
        assert CARD not in page
    group_id = TaskExecution.objects.exclude(task_group=None).get().task_group_id
    page = client.get(f"/admin/i3tasks/taskgroup/{group_id}/change/").content.decode()
    assert "[hidden]" in page
    assert CARD not in page


@pytest.mark.parametrize(
    ("sensitive", "sentence"),
    [
        ("card", "sensitive must be a tuple of parameters' names, such as"),
        ((1,), "sensitive must be a tuple of parameters' names, such as"),
        (("cart",), "has no parameter 'cart', which `sensitive` names"),
    ],
)
def test_a_misspelt_name_is_refused_when_the_task_is_defined(sensitive: Any, sentence: str) -> None:
    def pay(card: str) -> None: ...

    pay.__qualname__ = "pay"
    with pytest.raises(TaskDefinitionError, match=sentence):
        task(sensitive=sensitive)(pay)

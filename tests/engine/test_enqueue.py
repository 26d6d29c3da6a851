"""Enqueueing: part of the caller's transaction, published after its commit, whatever thread, loop or broker it is."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, TestCase
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone

from i3tasks import ChainHandle, RetryPolicy, TaskDecorator, task
from i3tasks.calls.base import AsyncTask, RecordedTask, SyncTask
from i3tasks.exceptions import ArgumentError, TaskDefinitionError, UnknownQueueError
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.registry import TaskOptions
from i3tasks.threads.batching import BatchThread
from i3tasks.types import I3TasksSettings, PullQueue
from tests.shop.models import Order
from tests.shop.tasks import add, describe, pushed
from tests.support.rigs import NotingPublisher, until

VALUES = [
    datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001 naive, and so it stays
    date(2026, 1, 2),
    UUID(int=7),
    Decimal("1.10"),
    timedelta(days=-1, microseconds=3),
    {"nested": [Decimal("NaN").is_nan(), {"when": date(2026, 1, 2)}]},
    1e300,
    None,
]


@TaskDecorator
def documented(value: int) -> int:
    return value + 1


@TaskDecorator(bind=True, max_retries=7)
async def adocumented(value: int, task_metadata: Any = None) -> dict[str, Any]:
    return {"value": value, "max_retries": task_metadata.max_retries, "last": task_metadata.is_last_try}


def undecorated(value: int) -> int:
    return value


@task
def mirror(*args: Any, **kwargs: Any) -> list[str]:
    return [f"{type(value).__name__} {value!r}" for value in (*args, *kwargs.values())]


@task(bind=True)
async def adescribe(value: int, task_metadata: Any = None) -> dict[str, Any]:
    execution = await task_metadata.aget_task_execution()
    return {"value": value, "try_number": task_metadata.try_number, "uuid": str(execution.uuid)}


def executions() -> int:
    return TaskExecution.objects.count()


# --------------------------------------------------------------------------------------------------- definition


def test_each_kind_of_decoration_makes_its_kind_of_task() -> None:
    assert isinstance(add, SyncTask)
    assert isinstance(adescribe, AsyncTask)
    assert isinstance(documented, RecordedTask)
    assert isinstance(adocumented, RecordedTask)
    assert (adocumented.spec.options.max_retries, adescribe.spec.options.bind) == (7, True)
    assert (add.__name__, add.__module__) == ("add", "tests.shop.tasks")


async def test_a_plain_call_is_a_plain_call() -> None:
    assert add(1, 2) == 3
    assert asyncio.iscoroutinefunction(adescribe.spec.function)
    assert await pushed("x") == "x"


def test_what_no_worker_could_find_is_refused() -> None:
    def local() -> None: ...

    for function in (local, lambda: None, Order, "text"):
        with pytest.raises(TaskDefinitionError):
            task(function)  # type: ignore[call-overload]


def test_options_beside_a_function_are_used() -> None:
    defined = task(undecorated, queue_name="heavy", max_retries=0)
    assert defined.spec.options == TaskOptions(queue_name="heavy", max_retries=0)
    assert TaskDecorator(undecorated, unique=True).spec.options == TaskOptions(unique=True)
    with pytest.raises(TaskDefinitionError, match="nonsense"):
        task(undecorated, nonsense=1)  # type: ignore[call-overload]


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "utf_8"])
def test_the_documented_encoding_is_utf8(encoding: str) -> None:
    TaskDecorator(encoding=encoding)(undecorated)


@pytest.mark.parametrize("encoding", ["latin-1", "punycode", "nonsense", "", "a\x00", None])
def test_another_encoding_is_refused(encoding: Any) -> None:
    with pytest.raises(TaskDefinitionError, match="UTF-8"):
        TaskDecorator(encoding=encoding)(undecorated)


@pytest.mark.parametrize(
    ("options", "topic"),
    [
        ({}, "projects/own/topics/shop.default"),
        ({"queue_name": "heavy"}, "projects/own/topics/shop.heavy"),
        ({"topic_name": "theirs"}, "projects/own/topics/theirs"),
        ({"topic_name": "theirs", "project_id": "other"}, "projects/other/topics/theirs"),
        ({"project_id": "other"}, "projects/other/topics/shop.default"),
    ],
)
def test_a_task_may_name_its_topic_and_project(
    options: dict[str, str], topic: str, sent: NotingPublisher, settings: Any, transactional_db: None
) -> None:
    settings.I3TASKS = I3TasksSettings(namespace="shop", other_queues=(PullQueue("heavy", "worker"),))
    settings.PUBSUB_CONFIG = {"EMULATOR": True, "PROJECT_ID": "own"}
    TaskDecorator(**options)(undecorated).delay(1)  # type: ignore[call-overload]
    assert [message.topic for message in sent.messages] == [topic]


def test_two_places_for_a_tasks_calls_are_refused() -> None:
    with pytest.raises(TaskDefinitionError, match="give one of them"):
        TaskDecorator(queue_name="heavy", topic_name="theirs")(undecorated)


@pytest.mark.parametrize(
    "options",
    [{"run_after": 60}, {"until": 60}, {"idempotency_key": "k"}, {"max_retries": 2}, {"retry": RetryPolicy()}],
)
def test_options_that_one_run_cannot_use_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        add.using(**options).sync_run(1, 2)


def test_a_period_without_a_key_is_refused() -> None:
    with pytest.raises(ArgumentError, match="give both"):
        add.using(idempotency_period=timedelta(hours=1))


@pytest.mark.parametrize(
    "options",
    [{"max_retries": -1}, {"max_retries": "3"}, {"timeout": 0}, {"timeout": "1"}, {"priority": 101}, {"nonsense": 1}],
)
def test_options_that_make_no_sense_are_refused_at_definition(options: dict[str, Any]) -> None:
    with pytest.raises(TaskDefinitionError, match=next(iter(options))):
        task(**options)(documented.spec.function)


@pytest.mark.parametrize(
    "options",
    [{"max_retries": -1}, {"max_retries": 1.5}, {"timeout": 0}, {"timeout": -1}, {"priority": -101}, {"priority": "1"}],
)
def test_options_that_make_no_sense_are_refused_at_the_call(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        add.using(**options)


# -------------------------------------------------------------------------------------------------------- calls


@pytest.mark.django_db
def test_delay_returns_a_handle_and_async_run_is_the_same(sent: NotingPublisher) -> None:
    for call in (add.delay, add.async_run):
        handle = call(1, right=2)
        assert handle.task_execution is not None
        assert handle.task_execution_id == handle.task_execution.pk
        assert handle.task_uuid == handle.task_execution.uuid
        assert (handle.task_execution.task_args, handle.task_execution.task_kwargs) == ([1], {"right": 2})
        assert (handle.task_execution.task_path, handle.task_execution.task_name) == ("tests.shop.tasks", "add")


@pytest.mark.django_db
@pytest.mark.usefixtures("sent")
def test_using_changes_each_option_for_its_calls_only() -> None:
    due = timezone.now() + timedelta(hours=1)
    base = add.using(queue_name="heavy", max_retries=9)
    handle = base.using(run_after=due, priority=5, timeout=2.5, max_retries=0).delay(1, 2)
    execution, task_try = handle.task_execution, handle.task_execution_try
    assert execution is not None
    assert task_try is not None
    assert (execution.queue_name, execution.priority) == ("heavy", 5)
    assert execution.options == {"max_retries": 0, "timeout": 2.5}
    assert (task_try.run_after, task_try.dispatch_at) == (due, due)
    plain = add.delay(1, 2).task_execution
    assert plain is not None
    assert (plain.queue_name, plain.priority, plain.options) == ("default", 0, None)
    assert base.delay(1, 2).task_execution_try.run_after is None  # type: ignore[union-attr]


@pytest.mark.django_db
@pytest.mark.usefixtures("sent")
def test_each_call_goes_by_the_settings_of_its_time(settings: Any) -> None:
    heavy = add.using(queue_name="heavy")
    assert [job.delay(1, 2).task_execution.queue_name for job in (add, heavy)] == ["default", "heavy"]  # type: ignore[union-attr]
    settings.I3TASKS = replace(settings.I3TASKS, default_queue=PullQueue("other", "worker"), other_queues=())
    assert add.delay(1, 2).task_execution.queue_name == "other"  # type: ignore[union-attr]
    with pytest.raises(UnknownQueueError, match="'heavy'"):
        heavy.delay(1, 2)


@pytest.mark.django_db
@pytest.mark.parametrize("delay", [timedelta(minutes=1), 60])
def test_run_after_may_be_a_delay(delay: Any, sent: NotingPublisher) -> None:
    before = timezone.now()
    task_try = add.using(run_after=delay).delay(1, 2).task_execution_try
    assert task_try is not None
    assert task_try.run_after is not None
    assert timedelta(minutes=1) <= task_try.run_after - before < timedelta(minutes=2)
    assert sent.messages == [], "the dispatcher sends it when it is due"


def test_a_naive_run_after_and_an_unknown_queue_are_refused() -> None:
    with pytest.raises(ArgumentError, match="time zone"):
        add.using(run_after=datetime(2030, 1, 1))  # noqa: DTZ001
    with pytest.raises(UnknownQueueError, match="'nope'"):
        add.using(queue_name="nope")


@pytest.mark.django_db
def test_arguments_come_back_as_themselves() -> None:
    expected = [f"{type(value).__name__} {value!r}" for value in VALUES]
    assert mirror.sync_run(*VALUES).result.result == expected
    assert mirror.sync_run(**{f"v{index}": value for index, value in enumerate(VALUES)}).result.result == expected


@pytest.mark.django_db
def test_what_json_can_not_hold_is_refused_by_name_before_a_row_is_written() -> None:
    with pytest.raises(ArgumentError, match=r"kwargs\['right'\]\['a'\]\[1\].*object"):
        add.delay(1, right={"a": [1, object()]})  # type: ignore[arg-type]
    assert executions() == 0


# -------------------------------------------------------------------------------------------------------- many


@pytest.mark.django_db
def test_delay_many_takes_both_kinds_of_items_in_order(sent: NotingPublisher) -> None:
    handles = add.delay_many([(1, 2), [3, 4], {"left": 5, "right": 6}])
    calls = [(handle.task_execution.task_args, handle.task_execution.task_kwargs) for handle in handles]  # type: ignore[union-attr]
    assert calls == [([1, 2], {}), ([3, 4], {}), ([], {"left": 5, "right": 6})]
    assert add.delay_many([]) == []


@pytest.mark.django_db
def test_delay_many_costs_a_few_queries_whatever_their_number(sent: NotingPublisher) -> None:
    with CaptureQueriesContext(connection) as few:
        add.delay_many([(1, 2)] * 2)
    with CaptureQueriesContext(connection) as many:
        add.delay_many([(1, 2)] * 500)
    assert len(many) == len(few) <= 4, "SQLite: the first row, which gives the ids, and the others; of two tables"
    assert executions() == 502


@pytest.mark.django_db(transaction=True)
def test_delay_many_is_all_or_nothing_and_publishes_together(sent: NotingPublisher) -> None:
    with pytest.raises(ArgumentError):
        add.delay_many([(1, 2), (3, object())])
    for bad in ("ab", b"ab", 7, {1, 2}, {1: 2}):
        with pytest.raises(ArgumentError):
            add.delay_many([bad])  # type: ignore[list-item]
    assert (executions(), sent.messages) == (0, [])
    handles = add.delay_many([(number, 1) for number in range(3)])
    assert sent.try_ids == [handle.task_execution_try.pk for handle in handles]  # type: ignore[union-attr]


@pytest.mark.usefixtures("sent")
@pytest.mark.django_db(transaction=True)
def test_handles_of_many_calls_have_rows_of_their_own() -> None:
    handles = add.delay_many([(number, 1) for number in range(3)])
    for number, handle in enumerate(handles):
        task_try = handle.task_execution_try
        assert task_try is not None
        assert task_try is handle.task_execution_try is handle.first.task_execution_try
        assert task_try == TaskExecutionTry.objects.get(task_execution__task_args=[number, 1])
        assert (handle.task_execution_id, handle.task_uuid) == (
            task_try.task_execution_id,
            task_try.task_execution.uuid,
        )  # type: ignore[union-attr]
        assert handle == ChainHandle.get(handle.task_uuid)  # type: ignore[arg-type]
        assert str(handle.task_execution) in repr(handle)
    assert handles[0] != handles[1]
    assert handles[0] != "a handle"


@pytest.mark.django_db(transaction=True)
async def test_adelay_many(sent: NotingPublisher) -> None:
    assert len(await add.adelay_many((number, 1) for number in range(3))) == 3
    assert len(sent.messages) == 3


# ------------------------------------------------------------------------------------------------ transactions


@pytest.mark.django_db(transaction=True)
def test_nothing_is_published_before_the_outer_commit(sent: NotingPublisher) -> None:
    with transaction.atomic():
        with transaction.atomic():
            add.delay(1, 2)
        assert sent.messages == []
    assert len(sent.messages) == 1


@pytest.mark.django_db(transaction=True)
def test_a_rollback_leaves_nothing(sent: NotingPublisher) -> None:
    with transaction.atomic():
        add.delay(1, 2)
        transaction.set_rollback(True)
    assert (executions(), sent.messages) == (0, [])


@pytest.mark.django_db(transaction=True)
def test_a_rolled_back_savepoint_takes_its_calls_with_it(sent: NotingPublisher) -> None:
    with transaction.atomic():
        kept = add.delay(1, 2)
        with transaction.atomic():
            add.delay(3, 4)
            transaction.set_rollback(True)
    assert executions() == 1
    assert sent.try_ids == [kept.task_execution_try.pk]  # type: ignore[union-attr]


@pytest.mark.django_db(transaction=True)
def test_async_to_sync_inside_atomic_joins_the_transaction(sent: NotingPublisher) -> None:
    with transaction.atomic():
        async_to_sync(add.adelay)(1, 2)
        assert sent.messages == []
        transaction.set_rollback(True)
    assert (executions(), sent.messages) == (0, [])


class UnderTestCase(TestCase):
    """Django's TestCase never commits; its tools see what would be published."""

    @pytest.fixture(autouse=True)
    def _publisher(self, sent: NotingPublisher) -> None:
        self.sent = sent

    def test_on_commit_callbacks_can_be_captured_and_run(self) -> None:
        with self.captureOnCommitCallbacks(execute=False) as callbacks:
            add.delay(1, 2)
        assert (len(callbacks), self.sent.messages, executions()) == (1, [], 1)
        with self.captureOnCommitCallbacks(execute=True):
            add.delay(3, 4)
        assert len(self.sent.messages) == 1


# ------------------------------------------------------------------------------------------------------- views


def order_view(request: HttpRequest) -> HttpResponse:
    Order.objects.create(name="from a view")
    add.delay(1, 2)
    if "fail" in request.GET:
        raise ZeroDivisionError
    return HttpResponse(str(transaction.get_connection().in_atomic_block))


async def async_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str((await add.adelay(1, 2)).task_execution_id))


urlpatterns = [path("order/", order_view), path("async/", async_view)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.urls(__name__)
def test_atomic_requests_make_it_part_of_the_request(sent: NotingPublisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    client = Client(raise_request_exception=False)
    assert client.get("/order/?fail").status_code == 500
    assert (executions(), sent.messages) == (0, [])
    assert client.get("/order/").content == b"True"
    assert (executions(), len(sent.messages)) == (1, 1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.urls(__name__)
async def test_an_async_view_enqueues(sent: NotingPublisher) -> None:
    response = await AsyncClient().get("/async/")
    assert await TaskExecution.objects.filter(pk=int(response.content)).aexists()
    assert len(sent.messages) == 1


# -------------------------------------------------------------------------------------------- threads and loops


@pytest.mark.django_db(transaction=True)
def test_threads_enqueue_at_the_same_time(sent: NotingPublisher) -> None:
    def enqueue() -> None:
        try:
            for _ in range(10):
                add.delay(1, 2)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=enqueue) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (executions(), len(sent.messages)) == (40, 40)


@pytest.mark.django_db(transaction=True)
def test_one_loop_after_the_other_and_two_at_once(sent: NotingPublisher) -> None:
    async def both() -> list[Any]:
        return [await add.arun(1, 2), await adescribe.arun(3)]

    def in_a_loop() -> None:
        try:
            asyncio.run(both())
        finally:
            connections.close_all()

    asyncio.run(both())
    threads = [threading.Thread(target=in_a_loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert TaskExecution.objects.filter(outcome="success").count() == 6


# ------------------------------------------------------------------------------------------------------- broker


@pytest.mark.django_db(transaction=True)
def test_with_the_broker_down_it_succeeds_in_as_many_queries(sent: NotingPublisher, monkeypatch: Any) -> None:
    with CaptureQueriesContext(connection) as up:
        add.delay(1, 2)
    monkeypatch.undo()  # now the settings' own publisher, which has no broker
    with CaptureQueriesContext(connection) as down:
        handles = [add.delay(1, 2) for _ in range(3)]
    assert len(down) == 3 * len(up)
    task_try = TaskExecutionTry.objects.get(pk=handles[0].task_execution_try.pk)  # type: ignore[union-attr]
    assert task_try.dispatch_at is not None, "so the dispatcher sends it later"
    assert task_try.publish_count == 0


@pytest.mark.django_db(transaction=True)
def test_a_publisher_that_fails_never_reaches_the_caller(sent: NotingPublisher, monkeypatch: Any) -> None:
    def publish(message: Any) -> bool:
        raise OSError("a bug")

    monkeypatch.setattr(sent, "publish", publish)
    add.delay(1, 2)
    with transaction.atomic():
        add.delay_many([(1, 2)])
    assert executions() == 2


@pytest.mark.django_db(transaction=True)
def test_a_full_publisher_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BatchThread, "put_all", lambda self, items: 0)
    task_try = add.delay(1, 2).task_execution_try
    assert TaskExecutionTry.objects.get(pk=task_try.pk).dispatch_at is not None  # type: ignore[union-attr]


# -------------------------------------------------------------------------------------------------------- bind


@pytest.mark.django_db(transaction=True)
async def test_bound_tasks_are_told_about_their_run_by_sync_run_and_arun() -> None:
    task_try = await describe.arun(1)
    assert task_try.result.result == {"value": 1, "try_number": 1, "queue": "default"}
    task_try = await adescribe.arun(2)
    assert task_try.result.result["uuid"] == str(task_try.task_execution.uuid)
    task_try = await sync_to_async(adocumented)(3)
    assert task_try.result.result == {"value": 3, "max_retries": 0, "last": True}


@pytest.mark.django_db
def test_bound_tasks_are_told_about_their_run_under_force_sync(settings: Any) -> None:
    from dataclasses import replace

    settings.I3TASKS = replace(settings.I3TASKS, force_sync=True)
    handle = adocumented.delay(4)
    until(lambda: TaskExecutionTry.objects.filter(is_completed=True).exists())
    result = TaskExecutionTry.objects.get(pk=handle.task_execution_try.pk).result.result  # type: ignore[union-attr]
    assert result == {"value": 4, "max_retries": 7, "last": False}

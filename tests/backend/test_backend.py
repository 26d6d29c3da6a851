"""The contract of Django's tasks framework, by its documentation, with a real worker."""

from __future__ import annotations

import asyncio
import pickle
import sys
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import connections, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from i3tasks import ChainHandle, chain, group, schedule_task
from i3tasks.backend import PubSubBackend, as_task, task_options
from i3tasks.backend.framework import (
    InvalidTask,
    InvalidTaskBackend,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_backends,
    task_enqueued,
    task_finished,
    task_started,
)
from i3tasks.core.envelope import Envelope
from i3tasks.engine.beat import Beat
from i3tasks.exceptions import ArgumentError, TaskDefinitionError
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.registry import load
from i3tasks.signals import flush
from i3tasks.store.database import alias
from i3tasks.types import Schedule
from tests.shop import django_tasks as shop
from tests.shop.tasks import add
from tests.support.rigs import afinished, working

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("on_embedded")]

READY, RUNNING = TaskResultStatus.READY, TaskResultStatus.RUNNING
FAILED, SUCCESSFUL = TaskResultStatus.FAILED, TaskResultStatus.SUCCESSFUL


def run(count: int) -> None:
    """Let a worker run until that many executions have ended."""

    async def until_finished() -> None:
        async with working():
            await afinished(count)

    asyncio.run(until_finished())


def test_a_task_runs_and_its_result_is_read_back() -> None:
    result = shop.multiply.enqueue(6, right=7)

    assert (result.status, result.args, result.kwargs, result.attempts) == (READY, [6], {"right": 7}, 0)
    assert (result.started_at, result.finished_at, result.last_attempted_at) == (None, None, None)
    with pytest.raises(ValueError, match="not finished"):
        _ = result.return_value
    run(1)
    result.refresh()
    assert (result.status, result.return_value, result.errors, result.attempts) == (SUCCESSFUL, 42, [], 1)
    assert result.is_finished
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.last_attempted_at == result.started_at
    [worker_id] = result.worker_ids
    assert worker_id == TaskExecutionTry.objects.get().worker_id
    again = shop.multiply.get_result(result.id)
    assert again == result
    assert (again.task.func, again.backend, again.task.queue_name) == (shop.multiply.func, "default", "default")


async def test_coroutines_enqueue_and_read_in_coroutines() -> None:
    result = await shop.amultiply.aenqueue(6, 7)
    async with working():
        await afinished(1)
    await result.arefresh()
    assert (result.status, result.return_value) == (SUCCESSFUL, 42)
    assert (await shop.amultiply.aget_result(result.id)).task.priority == 5


def test_enqueueing_is_part_of_the_transaction() -> None:
    with transaction.atomic():
        gone = shop.multiply.enqueue(1, 2)
        transaction.set_rollback(True)
    with pytest.raises(TaskResultDoesNotExist):
        shop.multiply.get_result(gone.id)
    assert not TaskExecution.objects.exists()


def test_each_failed_try_is_an_error_and_an_attempt() -> None:
    result = shop.on_third_attempt.enqueue("x")
    run(1)
    result.refresh()
    assert (result.status, result.attempts) == (SUCCESSFUL, 3)
    assert result.return_value == ["x", 3, result.id, 2]
    assert [error.exception_class for error in result.errors] == [ValueError, ValueError]
    assert "not on attempt 2" in result.errors[1].traceback
    assert "Traceback (most recent call last)" in result.errors[1].traceback


def test_a_failed_task_says_why() -> None:
    result = shop.fails.enqueue("nothing there")
    run(1)
    result.refresh()
    assert (result.status, result.attempts) == (FAILED, 1)
    [error] = result.errors
    assert error.exception_class is LookupError
    assert "nothing there" in error.traceback
    with pytest.raises(ValueError, match="failed"):
        _ = result.return_value


def test_a_result_that_json_can_not_hold_fails_the_task_and_is_not_tried_again() -> None:
    result = shop.returns_an_order.enqueue()
    run(1)
    result.refresh()
    assert (result.status, result.attempts) == (FAILED, 1)
    assert "Order" in result.errors[0].traceback


@pytest.mark.parametrize("kind", ["number as a key", "not a number", "NUL", "surrogate"])
def test_no_result_arrives_as_another_one(kind: str) -> None:
    """Django's own reading of JSON lets these pass, and no database keeps them as they are."""
    result = shop.returns_what_json_lacks.enqueue(kind)
    run(1)
    result.refresh()
    assert (result.status, result.attempts) == (FAILED, 1)
    assert "that JSON can't hold: the result" in result.errors[0].traceback


def test_a_context_is_given_to_coroutines_too() -> None:
    result = shop.its_attempt.enqueue()
    run(1)
    result.refresh()
    assert result.return_value == 1


def test_a_body_in_a_process_of_its_own() -> None:
    result = shop.in_a_process.enqueue(1)
    run(1)
    result.refresh()
    assert result.return_value == 2


def test_a_cancelled_call_has_failed_with_an_error_that_says_so() -> None:
    result = shop.multiply.using(run_after=timezone.now() + timedelta(days=1)).enqueue(1, 2)
    ChainHandle.get(result.id).cancel()
    result.refresh()
    assert (result.status, result.attempts) == (FAILED, 0)
    [error] = result.errors
    assert error.exception_class_path == "i3tasks.exceptions.TaskCancelled"
    assert error.exception_class.__name__ == "TaskCancelled"


VALUES = [1, "é", None, True, 1.5, [1, [2]], {"a": {"b": []}}, {"__i3tasks__": "datetime", "value": "x"}]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_json_arrives_and_comes_back_as_it_was(value: Any) -> None:
    result = shop.give_back.enqueue(value)
    assert result.args == [value]
    run(1)
    result.refresh()
    assert (result.args, result.return_value) == ([value], value)


def test_arguments_are_made_json_as_django_does() -> None:
    result = shop.give_back.enqueue((1, b"two"))
    assert result.args == [[1, "two"]]
    for wrong in (object(), {1, 2}, datetime.now()):  # noqa: DTZ005
        with pytest.raises(TypeError):
            shop.give_back.enqueue(wrong)
    assert TaskExecution.objects.count() == 1


def test_arguments_that_the_task_does_not_take_are_refused_when_it_is_enqueued() -> None:
    with pytest.raises(ArgumentError, match="missing a required argument"):
        shop.multiply.enqueue(1)
    with pytest.raises(ArgumentError, match="too many"):
        shop.its_attempt.enqueue(1)
    assert not TaskExecution.objects.exists()


def test_unknown_ids_and_results_of_other_tasks() -> None:
    for wrong in ("nonsense", str(uuid4()), ""):
        with pytest.raises(TaskResultDoesNotExist):
            shop.multiply.get_result(wrong)
    result = shop.multiply.enqueue(1, 2)
    with pytest.raises(Exception, match="does not match") as mismatch:
        shop.amultiply.get_result(result.id)
    assert type(mismatch.value).__name__ == "TaskResultMismatch"


def test_time_priority_and_queue_are_those_of_the_call() -> None:
    later = timezone.now() + timedelta(hours=1)
    result = shop.multiply.using(priority=-7, queue_name="heavy", run_after=later).enqueue(1, 2)
    execution = TaskExecution.objects.get()
    assert (execution.priority, execution.queue_name) == (-7, "heavy")
    assert execution.tries.get().run_after == later
    read = shop.multiply.get_result(result.id).task
    assert (read.priority, read.queue_name, read.run_after) == (-7, "heavy", later)


def test_a_queue_by_another_name() -> None:
    result = shop.mail.enqueue("a@example.com")
    execution = TaskExecution.objects.get()
    assert execution.queue_name == "heavy"
    assert (result.backend, result.task.queue_name) == ("strict", "mail")
    assert as_task(shop.mail).spec.policy(None).max_retries == 0, "OPTIONS say so"
    with pytest.raises(InvalidTask, match="'push' is not valid"):
        shop.mail.using(queue_name="push")


def test_a_call_through_another_backend_has_the_options_of_that_one() -> None:
    def retries_of(result: Any) -> int:
        execution = TaskExecution.objects.get(uuid=result.id)
        return load(execution.task_path, execution.task_name).policy(execution.options).max_retries

    assert retries_of(shop.multiply.enqueue(2, 3)) == 3
    assert retries_of(shop.multiply.using(backend="strict").enqueue(2, 3)) == 0
    assert retries_of(shop.mail.using(backend="default", queue_name="default").enqueue("a")) == 3
    assert retries_of(shop.elsewhere.using(backend="strict", priority=7).enqueue(2)) == 0
    known = as_task(shop.elsewhere).spec
    assert (known.policy({}).max_retries, known.options.priority) == (3, 0), "as any other process knows it"


def test_a_parameter_may_have_the_name_of_what_workers_give() -> None:
    results = [shop.odd_names.enqueue(1, task_metadata=2), shop.odd_names.enqueue(1, 2)]
    results.append(shop.names_without_context.enqueue(task_metadata=3))
    run(3)
    for result in results:
        result.refresh()
    assert [result.return_value for result in results] == [[1, 1, 2], [1, 1, 2], 3]


@pytest.mark.parametrize(
    "changes",
    [{"priority": 101}, {"priority": 1.5}, {"queue_name": "nowhere"}, {"run_after": datetime.now()}, {"run_after": 60}],  # noqa: DTZ005
    ids=lambda changes: str(next(iter(changes))),
)
def test_invalid_tasks_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidTask):
        shop.multiply.using(**changes)


def test_many_calls_are_one_transaction_and_keep_their_order() -> None:
    results = task_backends["default"].enqueue_many(shop.multiply, [(1, 2), {"left": 3, "right": 4}])
    assert [(result.args, result.kwargs) for result in results] == [([1, 2], {}), ([], {"left": 3, "right": 4})]
    with pytest.raises(TypeError):
        task_backends["default"].enqueue_many(shop.multiply, [(1, 2), (1, object())])
    assert TaskExecution.objects.count() == 2


def test_many_calls_take_no_query_each() -> None:
    queries = []
    for number in (2, 40):
        with CaptureQueriesContext(connections[alias()]) as caught:
            task_backends["default"].enqueue_many(shop.multiply, [(1, 2)] * number)
        # A dashboard of another package, where it is installed, has queries of its own for each.
        queries.append(sum("i3tasks_" in query["sql"] for query in caught.captured_queries))
    assert 0 < queries[1] <= queries[0] + 2


def test_a_unique_task_gives_the_result_of_the_call_that_waits() -> None:
    assert shop.only_one.enqueue().id == shop.only_one.enqueue(number=1).id
    assert shop.only_one.enqueue(2).id != shop.only_one.enqueue().id


def test_one_registry_for_both_kinds_of_tasks() -> None:
    workflow = chain(as_task(shop.multiply).s(2, 3), add.s(1, 1), as_task(shop.amultiply).s(3, 4)).delay()
    members = group(as_task(shop.multiply).s(1, 1), add.s(1, 2)).then(as_task(shop.give_back).s([])).delay()
    schedule = schedule_task(as_task(shop.multiply), "0 3 * * *", args=[1, 2])
    run(6)
    assert TaskExecution.objects.exclude(outcome="success").count() == 0
    assert workflow.first.result(timeout=1) == 6
    members.refresh_from_db()
    assert members.status == "success"
    assert (schedule.task_path, schedule.task_name) == ("tests.shop.django_tasks", "multiply")
    own = add.delay(1, 2)
    read = task_backends["default"].get_result(str(own.task_uuid))
    assert (read.task.module_path, read.args, read.status) == ("tests.shop.tasks.add", [1, 2], READY)


def test_a_schedule_runs_a_coroutine_of_django_and_one_in_the_settings_too() -> None:
    schedule_task(as_task(shop.amultiply), "* * * * *", args=[2, 3])
    in_settings = Schedule("tests.shop.django_tasks", "amultiply", "* * * * *", [4, 5])
    with override_settings(I3TASKS=replace(settings.I3TASKS, schedules=(in_settings,))):
        Beat().pass_once()
        assert TaskExecution.objects.count() == 2
        run(2)
    tries = TaskExecutionTry.objects.filter(is_success=True)  # of two minutes, if one has just begun
    assert set(tries.values_list("result__result", "task_execution__priority")) == {(6, 5), (20, 5)}


@pytest.mark.parametrize("on_commit", [True, False])
def test_a_call_is_part_of_its_transaction_whatever_enqueue_on_commit_says(on_commit: bool) -> None:
    backend = {"BACKEND": "i3tasks.backend.PubSubBackend", "OPTIONS": {"enqueue_on_commit": on_commit}}
    with override_settings(TASKS={"default": {**backend, "ENQUEUE_ON_COMMIT": on_commit}}):
        with transaction.atomic():
            lost = shop.multiply.enqueue(1, 1)
            transaction.set_rollback(True)
        with transaction.atomic():
            kept = shop.multiply.enqueue(6, 7)
        assert task_backends["default"].check() == []
        run(1)
        kept.refresh()
        assert kept.return_value == 42
        with pytest.raises(TaskResultDoesNotExist):
            lost.refresh()


def test_values_of_our_own_calls_are_shown_as_json() -> None:
    own = as_task(shop.give_back).delay({"at": datetime(2026, 1, 2, tzinfo=timezone.get_current_timezone())})
    read = shop.give_back.get_result(str(own.task_uuid))
    assert "__i3tasks__" not in str(read.args)


@pytest.fixture
def sent_signals() -> Iterator[list[tuple[str, Any, type[BaseException] | None]]]:
    """What Django's three signals brought: the name, the result, and the exception that was being handled."""
    seen: list[tuple[str, Any, type[BaseException] | None]] = []
    named = {"enqueued": task_enqueued, "started": task_started, "finished": task_finished}
    receivers = []
    for name, signal in named.items():

        def receiver(sender: type, task_result: Any, name: str = name, **kwargs: Any) -> None:
            assert sender is PubSubBackend
            seen.append((name, task_result, sys.exc_info()[0]))

        signal.connect(receiver)
        receivers.append((signal, receiver))
    yield seen
    for signal, receiver in receivers:
        signal.disconnect(receiver)


def test_the_signals_of_a_success(sent_signals: list[Any]) -> None:
    result = shop.multiply.enqueue(6, 7)
    add.delay(1, 2)
    run(2)
    assert flush(30)
    assert [(name, found.id, found.status, raised) for name, found, raised in sent_signals] == [
        ("enqueued", result.id, READY, None),
        ("started", result.id, RUNNING, None),
        ("finished", result.id, SUCCESSFUL, None),
    ]
    assert sent_signals[-1][1].return_value == 42


def test_the_last_failure_is_being_handled_when_its_signal_is_sent(sent_signals: list[Any]) -> None:
    shop.fails.enqueue("no")
    run(1)
    assert flush(30)
    name, found, raised = sent_signals[-1]
    assert (name, found.status, raised) == ("finished", FAILED, LookupError)
    assert found.errors[0].exception_class is LookupError


def test_a_task_that_is_tried_again_finishes_once(sent_signals: list[Any]) -> None:
    shop.on_third_attempt.enqueue("x")
    run(1)
    assert flush(30)
    assert [(name, found.attempts) for name, found, _ in sent_signals if name == "finished"] == [("finished", 3)]
    assert [name for name, _, _ in sent_signals].count("started") == 3


def test_tasks_of_our_class_have_our_options_and_can_be_pickled() -> None:
    own = PubSubBackend.task_class(func=shop.multiply.func, timeout=timedelta(minutes=1), max_retries=3)
    assert pickle.loads(pickle.dumps(own)) == own
    assert pickle.loads(pickle.dumps(own.using(priority=3))).priority == 3


def test_wrong_options_are_refused_where_they_stand() -> None:
    with pytest.raises(TaskDefinitionError, match="does not take 'time_out'"):
        task_options(time_out=3)
    for options, said in (({"max_retires": 3}, "max_retires"), ({"timeout": -1}, "above 0")):
        wrong = {"BACKEND": "i3tasks.backend.PubSubBackend", "OPTIONS": options}
        with override_settings(TASKS={"default": wrong}):
            with pytest.raises(InvalidTaskBackend, match=said):
                PubSubBackend.task_class(func=shop.multiply.func)
            [found] = task_backends["default"].check()
            assert (found.id, said in found.msg) == ("i3tasks.E022", True)


def test_a_queue_that_is_not_there_is_found_by_check() -> None:
    params = {"QUEUES": ["default", "emails"]}
    [found] = PubSubBackend("default", params).check()
    assert (found.id, "'emails'" in found.msg) == ("i3tasks.E021", True)
    assert not PubSubBackend("default", {**params, "OPTIONS": {"queues": {"emails": "heavy"}}}).check()


def test_its_check_leaves_wrong_settings_to_the_check_of_those() -> None:
    with override_settings(I3TASKS={}):
        assert PubSubBackend("default", {"QUEUES": ["default"]}).check() == []


def test_a_local_function_is_no_task() -> None:
    with pytest.raises(InvalidTask):
        PubSubBackend.task_class(func=lambda: None)


@pytest.mark.usefixtures("pushed_by_default")
def test_a_push_runs_it_too(client: Any) -> None:
    result = shop.amultiply.enqueue(6, 7)
    task_try = TaskExecutionTry.objects.get()
    envelope = Envelope(task_try.task_execution_id, task_try.pk, "tests.shop.django_tasks", "amultiply").to_bytes()
    body = {"message": {"data": b64encode(envelope).decode(), "messageId": "1"}}
    answer = client.post(reverse("i3tasks-push"), body, content_type="application/json")
    assert answer.status_code == 200, answer.content
    result.refresh()
    assert result.return_value == 42


def test_sync_code_runs_it_inline() -> None:
    as_task(shop.multiply).sync_run(6, 7)
    read = shop.multiply.get_result(str(TaskExecution.objects.get().uuid))
    assert (read.status, read.return_value, read.attempts) == (SUCCESSFUL, 42, 1)


@pytest.mark.parametrize("far_off", [datetime(9000, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_no_task_is_put_off_for_millennia(far_off: datetime) -> None:
    with pytest.raises(InvalidTask, match="beyond 8999"):
        shop.multiply.using(run_after=far_off)

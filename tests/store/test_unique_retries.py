"""A retry of a `unique` task's call takes the key again: two calls of one key are never unfinished at a time."""

import threading
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.utils import timezone

from i3tasks import task
from i3tasks.exceptions import I3TasksError, StoreUnavailable
from i3tasks.models import TaskExecution
from i3tasks.store.bulk import UNIQUE, Act, slices
from i3tasks.store.cancel import cancel, retry_failed
from i3tasks.store.search import Search
from i3tasks.store.settle import settle
from tests.store.helpers import failure, in_threads, lease, open_transaction, says

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]


@task(unique=True)
def alone(number: int, unit: str = "m") -> None: ...


def failed(handle: Any) -> Any:
    [claimed] = lease(handle.task_execution_try)
    settle([says(claimed, failure())])
    return handle


def retry(*handles: Any) -> Any:
    return retry_failed([handle.task_execution_id for handle in handles], now=timezone.now())


def unfinished() -> list[int]:
    return list(TaskExecution.objects.filter(outcome__isnull=True).order_by("pk").values_list("pk", flat=True))


def test_a_retry_beside_an_unfinished_successor_is_refused_in_words() -> None:
    old = failed(alone.delay(1))
    successor = alone.delay(number=1, unit="m")
    assert successor.task_execution_id != old.task_execution_id
    with pytest.raises(I3TasksError, match="another call with the same arguments is unfinished"):
        old.retry()
    with pytest.raises(CommandError, match="another call with the same arguments is unfinished"):
        call_command("i3tasks_run", str(old.task_execution_id), verbosity=0)
    [made] = slices(Search(), Act.RETRY, now=timezone.now())
    assert (made.done, made.skipped) == ([], {UNIQUE: 1})
    assert unfinished() == [successor.task_execution_id]
    assert TaskExecution.objects.get(pk=old.task_execution_id).outcome == "failed"
    cancel([successor.task_execution_id])
    assert old.retry()
    assert unfinished() == [old.task_execution_id]


def test_a_retry_has_the_key_until_it_has_finished() -> None:
    old = failed(alone.delay(1))
    assert old.retry()
    assert alone.delay(1).task_execution_id == old.task_execution_id
    assert alone.delay(2).task_execution_id != old.task_execution_id
    TaskExecution.objects.update(outcome="success")
    assert alone.delay(1).task_execution_id != old.task_execution_id


def test_of_several_that_failed_one_is_tried_again() -> None:
    first, second, other = failed(alone.delay(1)), failed(alone.delay(1)), failed(alone.delay(2))
    retried = retry(second, other, first)
    assert {one.task_execution_id for one in retried.tries} == {first.task_execution_id, other.task_execution_id}
    assert retried.taken == {second.task_execution_id}
    assert unfinished() == [first.task_execution_id, other.task_execution_id]


def test_a_call_with_a_key_of_its_own_shares_none_with_the_others() -> None:
    old = failed(alone.using(idempotency_key="mine").delay(1))
    successor = alone.delay(1)
    assert retry(old).taken == set()
    assert unfinished() == [old.task_execution_id, successor.task_execution_id]


@pytest.mark.postgres
def test_a_retry_waits_shortly_for_a_call_that_is_being_enqueued() -> None:
    old = failed(alone.delay(1))
    with open_transaction("SELECT 1 FROM i3tasks_taskkey FOR UPDATE"), pytest.raises(StoreUnavailable):
        old.retry()
    assert unfinished() == []
    assert old.retry()


@pytest.mark.postgres
def test_of_a_retry_and_a_call_that_is_committed_meanwhile_one_goes_on() -> None:
    old = failed(alone.delay(1))
    is_written = threading.Event()

    def enqueue_slowly() -> int:
        with transaction.atomic():
            made = alone.delay(1)
            is_written.set()
            return int(made.task_execution_id or 0)

    def retry_meanwhile() -> int:
        is_written.wait(20)
        return len(retry(old).tries)

    new, tries = in_threads([enqueue_slowly, retry_meanwhile])
    assert (tries, unfinished()) == (0, [new])


@pytest.mark.postgres
def test_retries_and_calls_at_the_same_time_leave_one_of_each_key_unfinished() -> None:
    numbers = range(12)
    old = [failed(alone.delay(number)) for number in numbers]
    in_threads(
        [
            lambda: len(retry(*old).tries),
            lambda: len(retry(*reversed(old)).tries),
            lambda: len(alone.delay_many([(number,) for number in reversed(numbers)])),
        ]
    )
    arguments = TaskExecution.objects.filter(outcome__isnull=True).values_list("task_args__0", flat=True)
    assert sorted(arguments) == list(numbers)

"""Keys: a call is written once, and no transaction waits long for another one that has written the same key."""

import threading
import time
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone
from psycopg import errors

from i3tasks.exceptions import StoreUnavailable
from i3tasks.models import ExecutionOutcome, TaskExecution, TaskExecutionTry, TaskKey
from i3tasks.store.enqueue import NewExecution, enqueue
from i3tasks.store.keys import Key
from i3tasks.store.lock_timeout import ATTEMPTS
from tests.store.helpers import in_threads, open_transaction

pytestmark = pytest.mark.django_db(transaction=True)

SHORT, LONG = timedelta(milliseconds=50), timedelta(minutes=1)


def call(key: str, lifetime: timedelta | None = None) -> NewExecution:
    return NewExecution("tests.shop.tasks", "add", [key], {}, key=Key(key, lifetime))


def write(*keys: str, **options: Any) -> list[tuple[TaskExecutionTry, bool]]:
    return enqueue([call(key) for key in keys], now=timezone.now(), **options)


def is_taken(key: str) -> bool:
    return not write(key)[0][1]


def insert_key(key: str) -> str:
    return f"INSERT INTO i3tasks_taskkey (key, token, created_at) VALUES ('{key}', '{uuid4()}', now())"


@pytest.mark.postgres
def test_a_key_that_another_transaction_is_writing_is_waited_for_shortly() -> None:
    with open_transaction(insert_key("k")), transaction.atomic():
        with pytest.raises(StoreUnavailable, match="same key"):
            write("a", "k", "z", longest_wait=SHORT)
        assert not TaskExecution.objects.exists(), "all or nothing"
        write("other")  # the caller's transaction is still good
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('lock_timeout')")
            assert cursor.fetchone() == ("0",)
    assert TaskExecution.objects.count() == 1
    assert not is_taken("k")


@pytest.mark.postgres
@pytest.mark.parametrize("strength", ["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"])
def test_a_taken_key_is_answered_without_its_lock(strength: str) -> None:
    [(first, _)] = write("k")
    with open_transaction(f"SELECT 1 FROM i3tasks_taskkey FOR {strength}"):
        [(again, is_new)] = write("k", longest_wait=SHORT)
    assert (again.pk, is_new) == (first.pk, False)


@pytest.mark.postgres
def test_calls_in_opposite_orders_do_not_deadlock() -> None:
    keys = [f"k{number}" for number in range(30)]
    for _ in range(5):
        TaskKey.objects.all().delete()
        TaskExecution.objects.all().delete()
        forwards, backwards = partial(write, *keys, longest_wait=LONG), partial(write, *keys[::-1], longest_wait=LONG)
        answers = in_threads([forwards, backwards])
        assert TaskExecution.objects.count() == len(keys)
        for answer, order in zip(answers, (keys, keys[::-1]), strict=True):
            assert [item.task_execution.task_args[0] for item, _ in answer] == order


@pytest.mark.postgres
def test_two_transactions_that_wait_for_each_other_are_told_so() -> None:
    def both(first: str, second: str, meet: Any) -> bool:
        try:
            with transaction.atomic():
                write(first)
                meet.wait(20)
                write(second)
        except StoreUnavailable:
            return False
        return True

    meet = threading.Barrier(2)
    done = in_threads([lambda: both("a", "b", meet), lambda: both("b", "a", meet)])
    assert not all(done)
    assert TaskExecution.objects.count() == 2 * done.count(True)


@pytest.mark.parametrize(
    ("columns", "is_free"),
    [
        ({"is_completed": True, "is_success": True, "finished_at": True}, True),
        ({"is_success": False, "finished_at": True}, True),  # django-i3tasks completes no try that failed
        ({"started_at": True}, False),
        ({}, False),
    ],
)
def test_a_call_that_a_worker_of_django_i3tasks_finished_gives_its_key_back(
    columns: dict[str, Any], is_free: bool
) -> None:
    write("k")
    now = timezone.now()
    TaskExecutionTry.objects.update(**{name: now if name.endswith("_at") else value for name, value in columns.items()})
    assert is_taken("k") is not is_free


@pytest.mark.parametrize("outcome", ExecutionOutcome.values)
def test_a_finished_call_gives_its_key_back(outcome: str) -> None:
    write("k")
    TaskExecution.objects.update(outcome=outcome)
    assert not is_taken("k")


def test_a_failed_try_of_django_i3tasks_with_another_one_to_come_holds_the_key() -> None:
    [(first, _)] = write("k")
    TaskExecutionTry.objects.update(finished_at=timezone.now())
    TaskExecutionTry.objects.create(task_execution=first.task_execution, try_number=2)
    assert is_taken("k")


class GivesUp:
    """A database that gives up on the locks of a key's insert, as often as told."""

    def __init__(self, state: type[Exception], times: int) -> None:
        self.state, self.left, self.asked = state, times, 0

    def __call__(self, execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("INSERT") and "i3tasks_taskkey" in sql:
            self.asked += 1
            if self.left:
                self.left -= 1
                raise OperationalError("the database gave up on a lock") from self.state()
        return execute(sql, *rest)


CONTENTION = [errors.DeadlockDetected, errors.LockNotAvailable, errors.SerializationFailure]


@pytest.mark.parametrize("state", CONTENTION)
def test_a_call_outside_a_transaction_is_written_again_when_the_database_gave_up_on_a_lock(
    state: type[Exception],
) -> None:
    with connection.execute_wrapper(GivesUp(state, ATTEMPTS - 1)):
        answers = write("a", "b")
    assert [is_new for _, is_new in answers] == [True, True]
    assert TaskExecution.objects.count() == TaskKey.objects.count() == 2


@pytest.mark.parametrize("state", CONTENTION)
def test_it_is_written_a_few_times_only_and_then_nothing_is(state: type[Exception]) -> None:
    gives_up = GivesUp(state, 100)
    with connection.execute_wrapper(gives_up), pytest.raises(StoreUnavailable, match="same key"):
        write("a")
    assert gives_up.asked == ATTEMPTS
    assert not TaskExecution.objects.exists()
    assert not is_taken("a")


@pytest.mark.parametrize("state", CONTENTION)
def test_in_the_callers_transaction_there_is_one_attempt(state: type[Exception]) -> None:
    gives_up = GivesUp(state, 1)
    with connection.execute_wrapper(gives_up), transaction.atomic():
        with pytest.raises(StoreUnavailable, match="same key"):
            write("a")
        assert gives_up.asked == 1
        write("other")  # the caller's transaction is still good
    assert TaskExecution.objects.get().task_args == ["other"]


def test_without_autocommit_there_is_one_attempt_too() -> None:
    gives_up = GivesUp(errors.DeadlockDetected, 1)
    transaction.set_autocommit(False)
    try:
        with connection.execute_wrapper(gives_up), pytest.raises(StoreUnavailable):
            write("a")
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert gives_up.asked == 1


@pytest.mark.postgres
def test_a_key_that_is_given_back_between_two_attempts_is_taken() -> None:
    held = open_transaction(insert_key("k"))
    held.__enter__()
    asked: list[str] = []

    def end_the_other(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("INSERT") and "i3tasks_taskkey" in sql:
            asked.append(sql)
            if len(asked) == 2:
                held.__exit__(None, None, None)
        return execute(sql, *rest)

    with connection.execute_wrapper(end_the_other):
        [(_, is_new)] = write("k", longest_wait=SHORT)
    assert (is_new, len(asked)) == (True, 2)


@pytest.mark.postgres
def test_a_call_outside_a_transaction_outlives_a_deadlock() -> None:
    """It is the one that PostgreSQL ends, since it looks for deadlocks long before the other one does."""
    has_b, has_a = threading.Event(), threading.Event()

    def b_then_a() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL deadlock_timeout = '1min'")
            write("b", longest_wait=LONG)
            has_b.set()
            has_a.wait(20)
            write("a", longest_wait=LONG)

    def a_and_b() -> int:
        has_b.wait(20)
        asked: list[str] = []

        def until_the_other_waits(execute: Any, sql: str, *rest: Any) -> Any:
            if sql.startswith("INSERT") and "i3tasks_taskkey" in sql:
                asked.append(sql)
                if len(asked) == 2:  # "a" is ours, and "b" is next
                    has_a.set()
                    await_a_waiting_backend()
            return execute(sql, *rest)

        with connection.cursor() as cursor:
            cursor.execute("SET deadlock_timeout = '10ms'")
        with connection.execute_wrapper(until_the_other_waits):
            write("a", "b", longest_wait=LONG)
        return len(asked)

    _, inserts = in_threads([b_then_a, a_and_b])
    assert inserts > 2, "there was no deadlock"
    assert TaskExecution.objects.count() == 2


def await_a_waiting_backend() -> None:
    other = connection.copy()
    end = time.monotonic() + 30
    try:
        with other.cursor() as cursor:
            waiting = 0
            while not waiting and time.monotonic() < end:
                cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                [waiting] = cursor.fetchone()
    finally:
        other.close()

"""Small words for the store's tests."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.deciding import GiveUp, RetryIn
from i3tasks.core.outcome import ErrorRecord, Failure, Outcome
from i3tasks.models import ExecutionOutcome, TaskExecution, TaskExecutionTry
from i3tasks.store.claims import claim
from i3tasks.store.enqueue import NewExecution, insert
from i3tasks.store.requests import Claimed, ClaimRequest, Settlement

T = TypeVar("T")
ADD = NewExecution("tests.shop.tasks", "add", [1, 2], {})
CONTROL = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE", "ROLLBACK")
PLANNING = ("SELECT current_setting('enable_", "SELECT set_config('enable_")
ERROR = ErrorRecord("shop.CardDeclined", "no money", "Traceback: no money")


def enqueue(count: int = 1, call: NewExecution = ADD) -> list[TaskExecutionTry]:
    return [*insert([call] * count, now=timezone.now())]


def request(task_try: TaskExecutionTry, **changes: Any) -> ClaimRequest:
    values = {
        "try_id": task_try.pk,
        "execution_id": task_try.task_execution_id,
        "token": SYSTEM_CLOCK.new_uuid7(),
        "worker_id": "w1",
        "lease_seconds": 30.0,
    }
    return ClaimRequest(**{**values, **changes})


def lease(*tries: TaskExecutionTry, **changes: Any) -> list[Claimed]:
    """Claim them all, which must work."""
    answers = claim([request(task_try, **changes) for task_try in tries])
    claimed = [answer for answer in answers if isinstance(answer, Claimed)]
    assert len(claimed) == len(tries)
    return claimed


def says(claimed: Claimed, outcome: Outcome) -> Settlement:
    return Settlement(claimed.try_id, claimed.execution_id, claimed.token, outcome)


def failure(delay: float | None = None, error: ErrorRecord = ERROR) -> Failure:
    """A final one, unless there is a delay."""
    return Failure(error, GiveUp(exhausted=True) if delay is None else RetryIn(timedelta(seconds=delay)))


def row(task_try: TaskExecutionTry | int) -> TaskExecutionTry:
    pk = task_try if isinstance(task_try, int) else task_try.pk
    return TaskExecutionTry.objects.select_related("task_execution").get(pk=pk)


def at(moment: datetime) -> datetime:
    """A `now` that a store function takes instead of the database's clock."""
    return moment


def columns(*kept: str) -> list[dict[str, Any]]:
    return list(TaskExecutionTry.objects.order_by("pk").values(*kept))


def plans(function: Callable[[], Any], *, deferred: int = 0) -> list[str]:
    """How PostgreSQL would carry out each of its statements amid thousands of rows that ended a month ago.

    `deferred` tries beside them are put off until tomorrow.
    """
    month_ago = timezone.now() - timedelta(days=30)
    enqueue(5000)
    ended = {"created_at": month_ago, "updated_at": month_ago}
    TaskExecutionTry.objects.update(
        **ended, asked_at=month_ago, started_at=month_ago, dispatch_at=None, is_completed=True, is_success=True
    )
    TaskExecution.objects.update(**ended, finished_at=month_ago, outcome=ExecutionOutcome.SUCCESS)
    if deferred:
        enqueue(deferred, replace(ADD, run_after=timezone.now() + timedelta(days=1)))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        with CaptureQueriesContext(connection) as captured:
            function()
        found = []
        for query in captured.captured_queries:
            if not query["sql"].startswith(CONTROL):
                cursor.execute("EXPLAIN " + query["sql"])
                found.append("\n".join(line for (line,) in cursor.fetchall()))
    return found


def queries_of(function: Callable[[], Any]) -> int:
    """How many statements about rows it takes: without transaction control, and what sets the planner for a batch."""
    with CaptureQueriesContext(connection) as captured:
        function()
    return sum(not query["sql"].startswith((*CONTROL, *PLANNING)) for query in captured.captured_queries)


def in_threads(functions: Sequence[Callable[[], T]]) -> list[T]:
    """Run them at the same time, each on a connection of its own."""
    start, answers, errors = threading.Barrier(len(functions)), {}, []

    def run(index: int) -> None:
        try:
            start.wait(20)
            answers[index] = functions[index]()
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors, errors
    return [answers[index] for index in range(len(functions))]


@contextmanager
def open_transaction(*statements: str) -> Iterator[None]:
    """A transaction of another connection, open while the block runs."""
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            for statement in statements:
                cursor.execute(statement)
            yield
            cursor.execute("ROLLBACK")
    finally:
        other.close()

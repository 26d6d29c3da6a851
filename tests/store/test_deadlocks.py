"""What callers and workers do never deadlocks among itself. With a project's own locks it may, and is made again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.admin.sites import site
from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils import timezone
from psycopg import errors

from i3tasks import RESULT, chain, delete_schedule, group, schedule_task
from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.outcome import Released, Success
from i3tasks.engine.beat import Beat
from i3tasks.exceptions import ExecutionNotFound, I3TasksError, StoreUnavailable
from i3tasks.models import ScheduleState, TaskExecution, TaskExecutionTry, TaskGroup, TaskSchedule
from i3tasks.store import lock_timeout
from i3tasks.store.ages import Ages
from i3tasks.store.appending import append_step
from i3tasks.store.audit import audit
from i3tasks.store.cancel import cancel, cancel_workflow, retry_failed
from i3tasks.store.claims import claim
from i3tasks.store.database import is_conflict, locked
from i3tasks.store.expiry import expire_leases
from i3tasks.store.groups import cancel_group, close_group, expire_groups
from i3tasks.store.requests import Claimed
from i3tasks.store.retention import clean
from i3tasks.store.schedules import count_from, known_schedules
from i3tasks.store.settle import settle
from i3tasks.store.ticks import read_states
from tests.shop.flows import note
from tests.shop.tasks import add
from tests.store.helpers import failure, in_threads, lease, request, says
from tests.support.rigs import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

ACTS_EACH = 40
OF_ODD_CALLERS = {
    "group that succeeded with an unfinished member",  # it was closed, or another one has joined it too late
    "chain that did not go on after a success",  # what followed was cleaned at once, and it was locked then
}


@dataclass
class Deadlocks:
    """Lets the database end the first statements that lock in favour of another transaction, so many times."""

    left: int
    column: str = ""

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        locks = sql.startswith("UPDATE") or "NO KEY UPDATE" in sql
        if self.left and locks and self.column in sql and "WHERE 0" not in sql:
            self.left -= 1
            raise OperationalError("deadlock detected") from errors.DeadlockDetected()
        return execute(sql, params, many, context)


def waiting_call() -> Any:
    return add.delay(1, 2)


def failed_call() -> Any:
    handle = add.delay(1, 2)
    settle([says(lease(handle.task_execution_try)[0], failure())])
    return handle


def gathering() -> TaskGroup:
    return TaskGroup.create(note, 1, ["all"])


ACTS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[], Any]]] = {
    "cancel": (waiting_call, lambda call: call.cancel(), lambda: TaskExecution.objects.get().outcome == "cancelled"),
    "cancel one": (
        waiting_call,
        lambda call: cancel([call.task_execution_id]),
        lambda: TaskExecution.objects.get().outcome == "cancelled",
    ),
    "retry": (failed_call, lambda call: call.retry(), lambda: TaskExecutionTry.objects.count() == 2),
    "then": (waiting_call, lambda call: call.then(note, 1), lambda: bool(TaskExecution.objects.get().chain)),
    "reschedule": (
        waiting_call,
        lambda call: call.reschedule(timezone.now() + timedelta(hours=1)),
        lambda: TaskExecutionTry.objects.get().run_after is not None,
    ),
    "close": (gathering, lambda row: row.close(), lambda: TaskGroup.objects.get().status == "success"),
    "cancel a group": (gathering, lambda row: row.cancel(), lambda: TaskGroup.objects.get().status == "failed"),
    "sync_run": (lambda: None, lambda _: add.sync_run(1, 2), lambda: TaskExecution.objects.get().outcome == "success"),
}


@pytest.mark.parametrize("name", ACTS)
def test_what_a_deadlock_ends_is_made_again_if_the_transaction_is_its_own(name: str) -> None:
    make, act, has_happened = ACTS[name]
    made, deadlocks = make(), Deadlocks(2)
    with connection.execute_wrapper(deadlocks):
        act(made)
    assert deadlocks.left == 0
    assert has_happened()
    assert audit() == []


@pytest.mark.parametrize("name", ACTS)
def test_in_a_transaction_of_the_caller_the_caller_is_told(name: str) -> None:
    """Its earlier locks stay until it ends, so the same would happen again."""
    make, act, has_happened = ACTS[name]
    made, deadlocks = make(), Deadlocks(2)
    told = pytest.raises(I3TasksError if name == "sync_run" else OperationalError)
    with connection.execute_wrapper(deadlocks), told, transaction.atomic():
        act(made)
    assert deadlocks.left == 1
    with suppress(TaskExecution.DoesNotExist):
        assert not has_happened()


def test_what_an_inline_body_returned_is_no_failure_because_of_a_deadlock() -> None:
    at_the_end = Deadlocks(2, "is_success")
    with connection.execute_wrapper(at_the_end):
        assert add.sync_run(1, 2).is_success
    assert at_the_end.left == 0
    at_the_end.left = 1
    with connection.execute_wrapper(at_the_end), pytest.raises(StoreUnavailable), transaction.atomic():
        add.sync_run(3, 4)
    assert TaskExecution.objects.count() == 1


@pytest.mark.postgres
def test_a_cancellation_gives_way_to_a_transaction_that_locks_in_another_order() -> None:
    handle = waiting_call()
    holds, may_go_on = threading.Event(), threading.Event()

    def stranger() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL deadlock_timeout = '20s'")
            list(TaskExecution.objects.select_for_update())
            holds.set()
            assert may_go_on.wait(20)
            list(TaskExecutionTry.objects.select_for_update())

    def cancelling() -> None:
        assert holds.wait(20)
        with connection.cursor() as cursor:
            cursor.execute("SET deadlock_timeout = '50ms'")
        with connection.execute_wrapper(tells_of_the_second_lock(may_go_on)):
            handle.cancel()

    in_threads([stranger, cancelling])
    assert TaskExecution.objects.get().outcome == "cancelled"


def tells_of_the_second_lock(about_to_wait: threading.Event) -> Any:
    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "FOR NO KEY UPDATE" in sql and 'FROM "i3tasks_taskexecution" ' in sql:
            about_to_wait.set()
        return execute(sql, params, many, context)

    return wrapper


# ------------------------------------------------------------------------------------------- all of it at the same time


class Caller:
    """Does to workflows, at random, what workers and callers may. Each act is a transaction, or in a caller's."""

    def __init__(self, seed: int) -> None:
        self._choose = random.Random(seed)
        self._acts = [
            self._append,
            self._append,
            self._cancel,
            self._cancel_group,
            self._close,
            self._join,
            self._retry,
        ]
        self._acts += [self._run] * 6 + [self._run_inline, self._expire, self._clean]

    def act(self) -> None:
        of_the_caller = transaction.atomic() if self._choose.random() < 0.3 else nullcontext()
        with suppress(ExecutionNotFound), of_the_caller:  # retention may have been quicker
            self._choose.choice(self._acts)()

    def _some(self, model: Any, **wanted: Any) -> Any:
        rows = model.objects.filter(**wanted).order_by("pk")
        return [self._choose.choice(rows)] if (rows := list(rows)) else []

    def _append(self) -> None:
        for start in self._some(self._choose.choice([TaskExecution, TaskGroup])):
            append_step(start, note.as_step("more"), now=timezone.now())

    def _cancel(self) -> None:
        for execution in self._some(TaskExecution, outcome=None):
            cancel_workflow(execution_ids=[execution.pk])

    def _cancel_group(self) -> None:
        for row in self._some(TaskGroup, status="pending", part_of__isnull=False):
            cancel_group(row.pk)

    def _close(self) -> None:
        for row in self._some(TaskGroup, status="pending", part_of__isnull=False):
            close_group(row.pk)

    def _join(self) -> None:
        for row in self._some(TaskGroup):
            with suppress(IntegrityError), transaction.atomic():  # its row may be deleted meanwhile
                note.delay("joins", __i3group__=row)  # type: ignore[call-arg]
                connection.check_constraints()

    def _retry(self) -> None:
        ended = TaskExecution.objects.filter(outcome__in=["failed", "cancelled"]).values_list("pk", flat=True)
        retry_failed(self._choose.sample(sorted(ended), min(len(ended), 3)), now=timezone.now())

    def _run(self, wait: bool = False) -> None:
        waiting = list(TaskExecutionTry.objects.filter(is_completed=False).select_related("task_execution"))
        some = self._choose.sample(waiting, min(len(waiting), 1 if wait else 5))
        answers = claim([request(task_try) for task_try in some], wait=wait)
        outcome = self._choose.choice([Success(1), Success(1), failure(), failure(delay=0), Released()])
        settle([says(answer, outcome) for answer in answers if isinstance(answer, Claimed)], wait=wait)

    def _run_inline(self) -> None:
        self._run(wait=True)

    def _expire(self) -> None:
        expire_groups(10, now=timezone.now() + timedelta(hours=2))
        expire_leases(10, clock=SYSTEM_CLOCK, now=timezone.now() + timedelta(hours=1))

    def _clean(self) -> None:
        clean(Ages(failed=timedelta(), other=timedelta()), 5, now=timezone.now() + timedelta(seconds=1))


@pytest.mark.postgres
def test_callers_and_workers_never_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever they do at the same time, as long as each transaction does one such thing."""
    deadlocks: list[BaseException] = []
    monkeypatch.setattr(lock_timeout, "is_conflict", lambda error: deadlocks.append(error) or is_conflict(error))
    inner = [
        chain(note.s(n), group(note.s(f"{n}a"), note.s(f"{n}b"), wait_for_all=n > 0), note.s(RESULT)) for n in (0, 1)
    ]
    for _ in range(4):
        group(*inner, note.s("c"), wait_for_all=True, deadline=timedelta(hours=1)).then(note.s(RESULT)).delay()

    def work(seed: int) -> None:
        caller = Caller(seed)
        for _ in range(ACTS_EACH):
            caller.act()

    in_threads([partial(work, seed) for seed in range(4)])
    assert deadlocks == []
    assert {finding.rule for finding in audit()} <= OF_ODD_CALLERS


# ------------------------------------------------------------------------------------------------------- schedules


def _until_one_waits() -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')"

    def waits() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(waiting)
            return bool(cursor.fetchone()[0])

    until(waits)


@pytest.mark.postgres
@pytest.mark.parametrize("by", ["delete_schedule", "the admin"])
def test_a_schedule_is_changed_and_deleted_at_the_same_time(by: str, rf: Any) -> None:
    """Whoever changes it has its row and wants its state: a deletion that had the state already would wait for it."""
    schedule = schedule_task(add, "* * * * *", name="often", args=[1, 2])
    Beat().pass_once(timezone.now())
    assert ScheduleState.objects.count() == 1

    def remove() -> None:
        if by == "the admin":
            site.get_model_admin(TaskSchedule).delete_queryset(rf.post("/"), TaskSchedule.objects.all())
        else:
            assert delete_schedule("often")

    def change() -> None:
        with transaction.atomic():
            list(locked(TaskSchedule.objects.filter(pk=schedule.pk), wait=True))
            has_row.set()
            _until_one_waits()
            count_from(["often"])

    def remove_beside() -> None:
        assert has_row.wait(20)
        remove()

    has_row = threading.Event()
    in_threads([change, remove_beside])
    assert not ScheduleState.objects.exists()
    assert not TaskSchedule.objects.exists()


@pytest.mark.postgres
def test_a_beat_outlives_schedules_that_are_made_and_deleted(events: list[str]) -> None:
    """It writes the state of a schedule whose row may be gone at its commit."""
    schedule_task(add, "* * * * *", name="gone", args=[1, 2])
    schedule_task(add, "* * * * *", name="stays", args=[1, 2])
    read = known_schedules()
    TaskSchedule.objects.filter(name="gone").delete()
    now = timezone.now()
    states, _ = read_states(read, now=now)
    assert set(states) == {"stays"}
    assert "beat_failed" not in events

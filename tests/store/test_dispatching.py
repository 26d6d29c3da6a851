"""The outbox: a due try is taken once, confirmed only if untouched, and a dead worker's try goes on as a failed one."""

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.test import override_settings
from django.utils import timezone

from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.outcome import Released, Success
from i3tasks.exceptions import WorkerLost
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.store import expiry
from i3tasks.store.dispatching import confirm_published, deny_published, next_due, take_due
from i3tasks.store.enqueue import NewExecution
from i3tasks.store.expiry import expire_leases
from i3tasks.store.requests import STALE, TryRef
from i3tasks.store.settle import settle
from i3tasks.types import I3TasksSettings
from tests.store.helpers import at, columns, enqueue, in_threads, lease, open_transaction, queries_of, row, says

pytestmark = pytest.mark.django_db

A_MINUTE = timedelta(minutes=1)
NOW = timezone.now()
LATER = at(NOW + timedelta(minutes=2))  # when the grace of what is enqueued now is over


@pytest.fixture(autouse=True)
def _this_moment() -> None:
    """Now is when a test begins, not when its file was read."""
    global NOW, LATER
    NOW = timezone.now()
    LATER = at(NOW + timedelta(minutes=2))


def dispatch_at(task_try: Any) -> Any:
    return row(task_try).dispatch_at


# ---------------------------------------------------------------------------------------------------------- take_due


def test_what_is_due_is_taken_once_for_the_grace() -> None:
    tries = enqueue(2)
    assert take_due(10) == [], "its first publish is under way"
    taken = take_due(10, now=LATER)
    assert {item.try_id for item in taken} == {item.pk for item in tries}
    assert take_due(10, now=LATER) == []
    assert {item.dispatch_at for item in taken} == {dispatch_at(item) for item in tries}
    assert dispatch_at(tries[0]) == NOW + timedelta(minutes=3)


def test_a_deferred_try_is_taken_when_it_may_run() -> None:
    moment = timezone.now() + timedelta(days=2)
    enqueue(call=NewExecution("m", "f", [], {}, queue_name="heavy", run_after=moment))
    assert take_due(10, now=at(moment - timedelta(microseconds=1))) == []
    [taken] = take_due(10, now=at(moment))
    assert (taken.module_name, taken.func_name, taken.queue_name) == ("m", "f", "heavy")


def test_running_and_finished_tries_are_never_taken() -> None:
    running, done = enqueue(2)
    lease(running)
    settle([says(lease(done)[0], Success(1))])
    assert take_due(10, now=at(timezone.now() + timedelta(days=100))) == []


def test_the_longest_due_come_first_up_to_the_limit() -> None:
    tries = enqueue(5)
    for age, task_try in enumerate(tries):
        TaskExecutionTry.objects.filter(pk=task_try.pk).update(dispatch_at=NOW - timedelta(minutes=age))
    assert {item.try_id for item in take_due(2)} == {tries[4].pk, tries[3].pk}


def test_at_most_a_tenth_has_been_published_before() -> None:
    published, fresh = enqueue(50), enqueue(50)
    TaskExecutionTry.objects.filter(pk__in=[item.pk for item in published]).update(publish_count=1)
    taken = {item.try_id for item in take_due(40, now=LATER)}
    assert len(taken & {item.pk for item in published}) == 4
    assert len(taken & {item.pk for item in fresh}) == 40


def test_a_small_limit_still_republishes_one() -> None:
    enqueue(3)
    TaskExecutionTry.objects.update(publish_count=1)
    assert len(take_due(1, now=LATER)) == 1


def test_what_a_stopping_worker_hands_back_does_not_queue_behind_republishes() -> None:
    lost, [task_try] = enqueue(30), enqueue()
    TaskExecutionTry.objects.update(publish_count=1)
    settle([says(lease(task_try)[0], Released())])
    assert task_try.pk in {item.try_id for item in take_due(10, now=LATER)}
    assert len(lost) == 30


def test_the_number_of_statements_does_not_grow() -> None:
    enqueue(1)
    few = queries_of(lambda: take_due(500, now=LATER))
    enqueue(100)
    assert queries_of(lambda: take_due(500, now=LATER)) == few


@pytest.mark.django_db(transaction=True)
def test_four_dispatchers_take_each_due_try_exactly_once() -> None:
    tries = enqueue(300)
    TaskExecutionTry.objects.update(dispatch_at=timezone.now() - timedelta(seconds=1))

    def take_all() -> list[int]:
        taken: list[int] = []
        while TaskExecutionTry.objects.filter(dispatch_at__lt=timezone.now()).exists():
            taken += [item.try_id for item in take_due(20)]
        return taken

    taken = in_threads([take_all] * 4)
    assert sorted(pk for part in taken for pk in part) == sorted(item.pk for item in tries)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_locked_row_does_not_hold_up_its_neighbours() -> None:
    held, free = enqueue(2)
    with open_transaction(f"SELECT 1 FROM i3tasks_taskexecutiontry WHERE id = {held.pk} FOR UPDATE"):
        assert [item.try_id for item in take_due(10, now=LATER)] == [free.pk]


def test_next_due_is_the_earliest_that_was_never_published() -> None:
    assert next_due(A_MINUTE) is None
    first, second = enqueue(2)
    soon = timezone.now() + timedelta(seconds=7)
    TaskExecutionTry.objects.filter(pk=second.pk).update(dispatch_at=soon)
    TaskExecutionTry.objects.filter(pk=first.pk).update(dispatch_at=soon - timedelta(seconds=5), publish_count=1)
    assert next_due(timedelta(seconds=6)) is None
    found = next_due(A_MINUTE)
    assert found is not None
    assert found[1] == soon
    assert abs(found[0] - timezone.now()) < A_MINUTE


# -------------------------------------------------------------------------------------------------- confirm_published


@pytest.mark.parametrize(
    ("publish_count", "hours"), [(0, 1), (1, 2), (2, 4), (3, 8), (4, 16), (5, 24), (6, 24), (10**6, 24)]
)
def test_a_confirmed_try_is_lost_after_an_hour_doubled_each_time_up_to_a_day(publish_count: int, hours: int) -> None:
    [task_try] = enqueue()
    TaskExecutionTry.objects.update(publish_count=publish_count)
    confirm_published([TryRef.of(task_try)], now=at(NOW))
    assert columns("publish_count", "dispatch_at") == [
        {"publish_count": publish_count + 1, "dispatch_at": NOW + timedelta(hours=hours)}
    ]


def claimed_meanwhile(task_try: TaskExecutionTry) -> None:
    lease(task_try)


def handed_back_meanwhile(task_try: TaskExecutionTry) -> None:
    settle([says(lease(task_try)[0], Released())])


def taken_again_meanwhile(task_try: TaskExecutionTry) -> None:
    assert take_due(1, now=LATER)


def confirmed_meanwhile(task_try: TaskExecutionTry) -> None:
    confirm_published([TryRef.of(task_try)])


@pytest.mark.parametrize("news", [confirm_published, deny_published])
@pytest.mark.parametrize(
    "meanwhile", [claimed_meanwhile, handed_back_meanwhile, taken_again_meanwhile, confirmed_meanwhile]
)
def test_late_news_of_a_publish_does_not_undo_what_happened_meanwhile(news: Any, meanwhile: Any) -> None:
    [task_try] = enqueue()
    published = TryRef.of(task_try)
    meanwhile(task_try)
    before = columns("publish_count", "dispatch_at", "claim_token")
    news([published])
    assert columns("publish_count", "dispatch_at", "claim_token") == before


def test_news_of_many_and_of_none_in_few_statements() -> None:
    tries = enqueue(100)
    assert queries_of(lambda: confirm_published([TryRef.of(item) for item in tries])) <= 2
    assert set(TaskExecutionTry.objects.values_list("publish_count", flat=True)) == {1}
    assert confirm_published([replace(TryRef.of(tries[0]), try_id=10**9)]) == [None]


def test_a_refused_publish_is_due_again_in_seconds() -> None:
    [task_try] = enqueue()
    deny_published([TryRef.of(task_try)], now=at(NOW))
    assert dispatch_at(task_try) - NOW < timedelta(seconds=30)
    assert row(task_try).publish_count == 0


# ------------------------------------------------------------------------------------------------------ expire_leases


def over(claimed: Any) -> Any:
    """The first instant at which its lease is over."""
    return at(row(claimed.try_id).lease_until + timedelta(microseconds=1))  # type: ignore[operator]


def call(**options: Any) -> NewExecution:
    return NewExecution("tests.shop.tasks", "add", [1, 2], {}, options=options)


def test_a_lease_is_good_until_its_very_end() -> None:
    [claimed] = lease(*enqueue())
    assert expire_leases(10, clock=SYSTEM_CLOCK) == []
    assert expire_leases(10, clock=SYSTEM_CLOCK, now=at(row(claimed.try_id).lease_until)) == []  # type: ignore[arg-type]
    assert not row(claimed.try_id).is_completed


def test_a_dead_workers_try_is_a_failed_one_and_the_next_follows_after_the_backoff() -> None:
    [claimed] = lease(*enqueue(), worker_id="host-7")
    assert expire_leases(10, clock=SYSTEM_CLOCK, now=over(claimed)) == []
    lost, again = TaskExecutionTry.objects.order_by("pk")
    assert (lost.is_completed, lost.is_success, lost.lease_until) == (True, False, None)
    assert lost.error_class == "i3tasks.exceptions.WorkerLost"
    assert "host-7" in lost.result.result
    assert (again.try_number, again.claim_token) == (2, None)
    assert again.run_after - lost.finished_at == timedelta(seconds=2)  # type: ignore[operator]
    assert row(claimed.try_id).task_execution.finished_at is None
    assert expire_leases(10, clock=SYSTEM_CLOCK, now=at(timezone.now() + timedelta(days=1))) == []


def test_it_stops_after_max_retries_like_any_other() -> None:
    [claimed] = lease(*enqueue(call=call(max_retries=0)))
    expire_leases(10, clock=SYSTEM_CLOCK, now=over(claimed))
    task_try = row(claimed.try_id)
    assert task_try.task_execution.outcome == "failed"
    assert "MaxRetriesExceededError" in str(task_try.error_traceback)
    assert TaskExecutionTry.objects.count() == 1


@override_settings(I3TASKS=I3TasksSettings(task_retry_backoff_base_seconds=None))
def test_without_a_backoff_the_next_try_is_to_be_published_now() -> None:
    [claimed] = lease(*enqueue())
    [due] = expire_leases(10, clock=SYSTEM_CLOCK, now=over(claimed))
    assert row(due.try_id).try_number == 2


def test_an_unregistered_task_is_lost_and_retried_too() -> None:
    [claimed] = lease(*enqueue(call=NewExecution("gone.tasks", "work", [], {})))
    expire_leases(10, clock=SYSTEM_CLOCK, now=over(claimed))
    assert [item["try_number"] for item in columns("try_number")] == [1, 2]


def test_a_cancelled_one_is_cancelled() -> None:
    [claimed] = lease(*enqueue())
    TaskExecution.objects.update(cancel_requested_at=timezone.now())
    expire_leases(10, clock=SYSTEM_CLOCK, now=over(claimed))
    assert row(claimed.try_id).task_execution.outcome == "cancelled"
    assert TaskExecutionTry.objects.count() == 1


def test_a_last_try_that_is_lost_is_one_error_and_those_before_it_are_warnings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "i3tasks")
    last, earlier, cancelled = lease(
        *enqueue(call=call(max_retries=0)), *enqueue(call=call(max_retries=3)), *enqueue(call=call(max_retries=0))
    )
    TaskExecution.objects.filter(pk=cancelled.execution_id).update(cancel_requested_at=timezone.now())
    expire_leases(10, clock=SYSTEM_CLOCK, now=over(cancelled))

    def of(claimed: Any) -> logging.LogRecord:
        names = f"execution_id={claimed.execution_id} execution_uuid='{claimed.execution_uuid}' try_id={claimed.try_id}"
        [record] = [record for record in caplog.records if names in record.getMessage()]
        return record

    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == [of(last)]
    assert "event='execution_failed'" in of(last).getMessage()
    assert isinstance(of(last).exc_info[1], WorkerLost)  # type: ignore[index]
    assert of(earlier).levelname == "WARNING"
    assert "event='try_failed'" in of(earlier).getMessage()
    assert "try_number=1" in of(earlier).getMessage()
    assert "next_try=2 next_try_at='2" in of(earlier).getMessage()
    assert "event='execution_cancelled'" in of(cancelled).getMessage()


def test_the_worker_that_was_only_slow_finds_its_settlement_stale() -> None:
    [claimed] = lease(*enqueue())
    expire_leases(10, clock=SYSTEM_CLOCK, now=over(claimed))
    assert settle([says(claimed, Success("late"))]) == [STALE]
    assert not row(claimed.try_id).is_success
    assert row(claimed.try_id).result.result != "late"


def test_it_takes_no_more_than_the_limit() -> None:
    claimed = lease(*enqueue(5))
    expire_leases(2, clock=SYSTEM_CLOCK, now=over(claimed[-1]))
    assert TaskExecutionTry.objects.filter(is_completed=True).count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_try_that_cannot_be_ended_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    claimed = lease(*enqueue(3))
    lost = expiry._lost

    def broken(task_try: Any, *rest: Any) -> Any:
        if task_try.pk == claimed[0].try_id:
            raise ValueError("a poisoned row")
        return lost(task_try, *rest)

    monkeypatch.setattr(expiry, "_lost", broken)
    expire_leases(10, clock=SYSTEM_CLOCK, now=over(claimed[-1]))
    assert [row(item.try_id).is_completed for item in claimed] == [False, True, True]
    [error] = [record.getMessage() for record in caplog.records if "internal_error" in record.getMessage()]
    names = f"execution_id={claimed[0].execution_id} execution_uuid='{claimed[0].execution_uuid}' try_id="
    assert error.startswith(f"event='internal_error' {names}")


def test_an_outage_is_an_outage_and_not_a_poisoned_row(monkeypatch: pytest.MonkeyPatch) -> None:
    [claimed] = lease(*enqueue())
    moment = over(claimed)

    def away(*_: Any) -> Any:
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(expiry, "_lost", away)
    with pytest.raises(OperationalError):
        expire_leases(10, clock=SYSTEM_CLOCK, now=moment)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("table", ["i3tasks_taskexecutiontry", "i3tasks_taskexecution"])
def test_a_locked_one_is_left_for_the_next_pass(table: str) -> None:
    held, free = lease(*enqueue(2))
    pk = held.try_id if table.endswith("try") else held.execution_id
    with open_transaction(f"SELECT 1 FROM {table} WHERE id = {pk} FOR UPDATE"):
        expire_leases(10, clock=SYSTEM_CLOCK, now=over(free))
    assert [row(item.try_id).is_completed for item in (held, free)] == [False, True]
    expire_leases(10, clock=SYSTEM_CLOCK, now=over(held))
    assert row(held.try_id).is_completed


@pytest.mark.django_db(transaction=True)
def test_four_dispatchers_write_each_next_try_once() -> None:
    claimed = lease(*enqueue(60))
    moment = over(claimed[-1])
    in_threads([lambda: [expire_leases(7, clock=SYSTEM_CLOCK, now=moment) for _ in range(12)]] * 4)
    assert TaskExecutionTry.objects.filter(try_number=1, is_completed=True).count() == 60
    assert TaskExecutionTry.objects.filter(try_number=2).count() == 60

"""Calls with conditions: later, once, cancelled, put off; on rows alone, without a broker."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from django.test import override_settings
from django.utils import timezone

from i3tasks import chain, group, task
from i3tasks.exceptions import ArgumentError, TaskFailed
from i3tasks.models import TaskExecution, TaskExecutionTry, TaskKey
from i3tasks.store.dispatching import take_due
from i3tasks.types import I3TasksSettings
from tests.shop.flows import double, mourn, note
from tests.shop.tasks import add, fail


@task(unique=True)
def rebuild(index: str) -> None:
    """Unique while unfinished."""


@pytest.mark.django_db
class TestLater:
    def test_run_after_takes_an_instant_a_timedelta_or_seconds(self) -> None:
        now = timezone.now()
        for when in (now + timedelta(hours=1), timedelta(hours=1), 3600):
            task_try = add.using(run_after=when).delay(1, 2).task_execution_try
            assert task_try is not None
            assert task_try.run_after is not None
            assert abs(task_try.run_after - now - timedelta(hours=1)) < timedelta(minutes=1)
            assert task_try.dispatch_at == task_try.run_after

    def test_delay_until_is_its_short_form(self) -> None:
        task_try = add.delay_until(timedelta(days=1), 1, right=2).task_execution_try
        assert task_try is not None
        assert task_try.run_after is not None
        assert task_try.task_execution.task_kwargs == {"right": 2}

    def test_until_spreads_calls_at_random(self) -> None:
        now = timezone.now()
        spread = [add.using(until=timedelta(hours=1)).delay(1, 2).task_execution_try for _ in range(20)]
        instants = {task_try.run_after for task_try in spread if task_try}
        assert len(instants) == 20
        assert all(at is not None and now <= at <= now + timedelta(hours=1, minutes=1) for at in instants)

    def test_a_naive_datetime_is_refused(self) -> None:
        with pytest.raises(ArgumentError, match="time zone"):
            add.using(run_after=datetime(2030, 1, 1))  # noqa: DTZ001

    def test_no_call_is_put_off_for_millennia(self) -> None:
        handle = add.delay(1, 2)
        far_off = datetime(9000, 1, 1, tzinfo=UTC)
        for when in (far_off, datetime.max.replace(tzinfo=UTC), far_off - timezone.now() + timedelta(days=1)):
            for refused in (lambda at: add.using(run_after=at), lambda at: add.using(until=at), handle.reschedule):
                with pytest.raises(ArgumentError, match="beyond the year 8999"):
                    refused(when)
        assert add.using(run_after=far_off - timedelta(seconds=1)).delay(1, 2)

    def test_a_period_ends_within_the_calendar(self) -> None:
        with pytest.raises(ArgumentError, match="idempotency_period must be a timedelta"):
            add.using(idempotency_key="k", idempotency_period=timedelta.max)

    @override_settings(I3TASKS=I3TasksSettings(maximum_eta=timedelta.max))
    def test_the_longest_maximum_eta(self) -> None:
        assert add.using(run_after=timedelta(days=2)).delay(1, 2)

    @override_settings(I3TASKS=I3TasksSettings(maximum_eta=timedelta(days=1)))
    def test_maximum_eta(self) -> None:
        with pytest.raises(ArgumentError, match="maximum_eta"):
            add.using(run_after=timedelta(days=2))

    def test_a_deferred_call_is_not_due_and_can_be_put_off(self) -> None:
        handle = add.using(run_after=3600).delay(1, 2)
        assert take_due(10) == []
        TaskExecutionTry.objects.update(publish_count=1)  # and its message is still to come, too early
        assert handle.reschedule(datetime(2020, 1, 1, tzinfo=UTC))
        assert TaskExecutionTry.objects.get().publish_count == 0, "to the dispatcher it is new"
        assert [ref.execution_id for ref in take_due(10)] == [handle.task_execution_id]

    def test_putting_off_takes_what_run_after_takes(self) -> None:
        handle = add.delay(1, 2)
        for when in (timedelta(hours=1), 3600):
            before = timezone.now()
            assert handle.reschedule(when)
            run_after = TaskExecutionTry.objects.get().run_after
            assert run_after is not None
            assert run_after >= before + timedelta(hours=1)
        with pytest.raises(ArgumentError, match="time zone"):
            handle.reschedule(datetime(2030, 1, 1))  # noqa: DTZ001

    def test_seconds_count_from_each_call(self) -> None:
        later = add.using(run_after=3600)
        later.delay(1, 2)
        later.delay(1, 2)
        assert TaskExecutionTry.objects.values("run_after").distinct().count() == 2

    @pytest.mark.parametrize("when", [float("inf"), float("nan"), 1e18, timedelta.max, "2030-01-01"])
    def test_what_is_no_time_is_refused(self, when: Any) -> None:
        with pytest.raises(ArgumentError, match="run_after must be"):
            add.using(run_after=when)


@pytest.mark.django_db
class TestCancelling:
    def test_what_waits_never_runs(self) -> None:
        handle = add.using(run_after=3600).delay(1, 2)
        handle.cancel()
        task_try = TaskExecutionTry.objects.get()
        assert (task_try.is_completed, task_try.is_success, task_try.dispatch_at) == (True, False, None)
        assert TaskExecution.objects.get().outcome == "cancelled"
        with pytest.raises(TaskFailed, match="cancelled"):
            handle.result(timeout=5)
        assert not handle.reschedule(timezone.now())

    def test_what_is_finished_stays_as_it_is(self) -> None:
        with override_settings(I3TASKS=I3TasksSettings(force_sync=True)):
            handle = add.delay(1, 2)
        handle.cancel()
        assert TaskExecution.objects.get().cancel_requested_at is None
        assert handle.result(timeout=5) == 3

    def test_a_cancelled_step_ends_its_chain(self) -> None:
        chain(note.s("a"), note.s("b")).delay().cancel()
        assert [row.outcome for row in TaskExecution.objects.all()] == ["cancelled"]

    def test_a_cancelled_group_fails_and_is_told_once(self) -> None:
        started = group(double.s(1), double.s(2)).otherwise(mourn).delay()
        started.cancel()
        assert started.status == "failed"
        assert TaskExecution.objects.filter(outcome="cancelled").count() == 2
        assert TaskExecution.objects.filter(task_name="mourn").count() == 1

    def test_a_failure_is_an_error_of_result(self) -> None:
        with override_settings(I3TASKS=I3TasksSettings(force_sync=True)):
            handle = fail.using(max_retries=0).delay("broken")
        with pytest.raises(TaskFailed, match="ValueError: broken"):
            handle.result(timeout=5)

    def test_a_failed_call_gets_one_more_try(self) -> None:
        with override_settings(I3TASKS=I3TasksSettings(force_sync=True)):
            handle = fail.using(max_retries=1).delay("broken")
            assert handle.retry()
        assert [row.is_success for row in TaskExecutionTry.objects.all()] == [False, False, False]
        assert TaskExecution.objects.get().outcome == "failed"
        waiting = add.delay(1, 2)
        assert not waiting.retry(), "it has not failed"

    def test_result_gives_up_in_time(self) -> None:
        with pytest.raises(TimeoutError):
            add.delay(1, 2).result(timeout=0.05)


@pytest.mark.django_db
class TestOnce:
    def test_the_same_key_is_the_same_call(self) -> None:
        once = add.using(idempotency_key="order-7")
        first, second = once.delay(1, 2), once.delay(9, 9)
        assert first.task_uuid == second.task_uuid
        assert add.using(idempotency_key="order-8").delay(1, 2).task_uuid != first.task_uuid
        assert double.using(idempotency_key="order-7").delay(1).task_uuid != first.task_uuid

    def test_a_key_is_free_after_its_period(self) -> None:
        once = add.using(idempotency_key="k", idempotency_period=timedelta(hours=1))
        first = once.delay(1, 2)
        TaskKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        assert once.delay(1, 2).task_uuid != first.task_uuid
        assert TaskKey.objects.count() == 1

    def test_unique_is_by_arguments_while_unfinished(self) -> None:
        first = rebuild.delay("a")
        assert rebuild.delay("a").task_uuid == first.task_uuid
        assert rebuild.delay("b").task_uuid != first.task_uuid
        first.cancel()
        assert rebuild.delay("a").task_uuid != first.task_uuid

    def test_a_taken_key_leaves_the_callers_transaction_good(self) -> None:
        once = add.using(idempotency_key="k")
        first = once.delay(1, 2)
        with transaction.atomic():
            assert once.delay(1, 2).task_uuid == first.task_uuid
            note.delay("after")
        assert TaskExecution.objects.count() == 2

    def test_many_at_once_in_delay_many(self) -> None:
        handles = add.using(idempotency_key="k").delay_many([(1, 2), (3, 4)])
        assert handles[0].task_uuid == handles[1].task_uuid


@pytest.mark.django_db(transaction=True)
def test_a_hundred_callers_at_once_get_one_execution() -> None:
    uuids: list[object] = []
    ready = threading.Barrier(20)

    def enqueue() -> None:
        try:
            ready.wait(30)
            for _ in range(5):
                uuids.append(add.using(idempotency_key="crowd").delay(1, 2).task_uuid)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=enqueue) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(uuids) == 100
    assert len(set(uuids)) == 1
    assert TaskExecution.objects.count() == 1


@pytest.mark.django_db
@override_settings(
    I3TASKS=I3TasksSettings(force_sync=True, error_message_characters=100, error_traceback_characters=200)
)
def test_an_error_is_kept_up_to_the_limits_of_the_settings() -> None:
    fail.using(max_retries=0).delay("x" * 5000)
    task_try = TaskExecutionTry.objects.select_related("result").get()
    assert len(task_try.result.result) == 100
    assert task_try.error_traceback is not None
    assert len(task_try.error_traceback) == 200

"""The helpers in each style of test: TestCase, TransactionTestCase, pytest-django, pytest-asyncio."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.test import TestCase, TransactionTestCase

from i3tasks import RESULT, chain, group
from i3tasks.broker.publisher import get_publisher
from i3tasks.core.clock import SYSTEM_CLOCK, current_clock
from i3tasks.exceptions import I3TasksError
from i3tasks.models import TaskExecution, TaskExecutionTry
from i3tasks.testing import TestMixin, adrain, advance, assert_enqueued, drain, eager, reset_clock, worker
from tests.shop.models import Order
from tests.shop.tasks import aadd, add, aplace_order, fail, place_order
from tests.support.rigs import NotingPublisher

ROOT = Path(__file__).resolve().parents[2]


class InATestCase(TestMixin, TestCase):
    """Everything in one transaction, which is rolled back."""

    def test_both_kinds_of_bodies_see_and_write_the_tests_rows(self) -> None:
        Order.objects.create(name="mine", total="1")
        place_order.delay("mine", "2")
        aplace_order.delay("other", "3")
        ran = drain()
        assert [task_try.is_success for task_try in ran] == [True, True]
        assert sorted(map(str, Order.objects.values_list("total", flat=True))) == ["2.00", "3.00"]

    def test_nothing_else_is_there(self) -> None:
        assert not Order.objects.exists()
        assert not TaskExecution.objects.exists()
        assert drain() == []

    def test_a_failing_body_is_recorded_and_its_retry_waits_for_its_time(self) -> None:
        fail.delay("no")
        [first] = drain()
        assert (first.is_success, first.error_class) == (False, "ValueError")
        assert drain() == [], "not yet"
        advance(timedelta(hours=1))
        [second] = drain()
        assert second.try_number == 2
        assert TaskExecution.objects.get().outcome == "failed"

    def test_an_error_is_raised_on_request(self) -> None:
        fail.delay("no")
        with pytest.raises(ValueError, match="no"):
            drain(raise_errors=True)
        assert TaskExecutionTry.objects.filter(is_success=False, is_completed=True).count() == 1

    def test_a_delay_is_waited_for(self) -> None:
        add.delay_until(timedelta(days=2), 1, 2)
        assert drain() == []
        advance(timedelta(days=1))
        assert drain() == []
        advance(timedelta(days=1, seconds=1))
        assert len(drain()) == 1

    def test_workflows_run_to_their_end(self) -> None:
        last = chain(add.s(1, 2), aadd.s(RESULT, 4)).delay()
        members = group(add.s(number, 1) for number in range(3)).then(place_order.s("joined", "1")).delay()
        assert len(drain()) == 2 + 3 + 1
        assert last.result(timeout=0.1) == 7
        members.refresh_from_db()
        assert members.status == "success"

    def test_only_one_queue(self) -> None:
        add.using(queue_name="heavy").delay(1, 2)
        add.delay(3, 4)
        [ran] = drain(queue_name="heavy")
        assert ran.task_execution.task_args == [1, 2]

    def test_higher_priority_first(self) -> None:
        for priority in (0, -5, 5):
            add.using(priority=priority).delay(priority, 0)
        assert [ran.result.result for ran in drain()] == [5, 0, -5]

    def test_it_ends_when_tasks_never_do(self) -> None:
        for number in range(4):
            add.delay(number, 0)
        with pytest.raises(I3TasksError, match="has run 3 tries"):
            drain(most=3)

    def test_eager_runs_at_once_and_retries_without_delay(self) -> None:
        with eager():
            handle = add.delay(1, 2)
            failing = fail.delay()
        assert handle.result(timeout=0.1) == 3
        assert TaskExecution.objects.get(pk=failing.task_execution_id).outcome == "failed"
        assert TaskExecutionTry.objects.filter(task_execution=failing.task_execution_id).count() == 2

    async def test_a_coroutine_of_a_test_case(self) -> None:
        await aadd.adelay(1, 2)
        [ran] = await adrain()
        assert ran.is_success


class InATransactionTestCase(TestMixin, TransactionTestCase):
    """Real commits: nothing is published all the same."""

    def test_nothing_is_published(self) -> None:
        publisher = get_publisher()
        assert not isinstance(publisher, NotingPublisher)
        with transaction.atomic():
            add.delay(1, 2)
        assert get_publisher().publish(None) is False  # type: ignore[arg-type]
        [ran] = drain()
        assert (ran.is_success, ran.publish_count) == (True, 0)


@pytest.mark.django_db
def test_in_pytest_with_a_transaction_of_its_own() -> None:
    add.delay(1, 2)
    assert_enqueued(add, args=(1, 2), count=1)
    assert len(drain()) == 1


@pytest.mark.django_db(transaction=True)
async def test_in_pytest_asyncio() -> None:
    await aadd.adelay(1, 2)
    await add.adelay(3, 4)
    with pytest.raises(I3TasksError, match="Await adrain"):
        drain()
    assert [ran.result.result for ran in await adrain()] == [3, 7]


@pytest.mark.django_db
def test_a_lease_that_the_clock_has_passed_is_lost() -> None:
    task_try = add.delay(1, 2).task_execution_try
    assert task_try is not None
    now = SYSTEM_CLOCK.now()
    TaskExecutionTry.objects.filter(pk=task_try.pk).update(
        started_at=now, lease_until=now + timedelta(seconds=30), dispatch_at=None, claim_token="0" * 32
    )
    assert drain() == []
    advance(timedelta(minutes=1))
    assert drain() == [], "the lost try ended, and its retry waits for its time"
    advance(timedelta(hours=1))
    [again] = drain()
    assert (again.try_number, again.is_success) == (2, True)


def test_the_clock_goes_forward_only_and_is_set_back() -> None:
    with pytest.raises(ValueError, match="forward only"):
        advance(timedelta(seconds=-1))
    advance(timedelta(days=400))
    assert current_clock().now() - SYSTEM_CLOCK.now() > timedelta(days=399)
    reset_clock()
    assert current_clock() is SYSTEM_CLOCK


@pytest.mark.django_db(transaction=True)
def test_a_real_worker() -> None:
    with worker() as running:
        handle = add.delay(1, 2)
        add.delay_until(timedelta(days=1), 3, 4)
        running.wait()
        assert handle.result(timeout=1) == 3
        assert TaskExecutionTry.objects.get(pk=handle.task_execution_try.pk).publish_count >= 0  # type: ignore[union-attr]


@pytest.mark.django_db
def test_a_worker_in_a_transaction_is_refused() -> None:
    with pytest.raises(I3TasksError, match=r"django_db\(transaction=True\)"), worker():
        pass


@pytest.mark.sqlite  # the plugin knows no database
def test_the_plugin_keeps_tests_from_publishing_unless_told() -> None:
    inner = ["-p", "no:cacheprovider", "-q", "-n0", "tests/testing/inner_publishing.py"]
    for told, expected in (("false", "1 failed"), ("true", "1 passed")):
        run: Any = subprocess.run(
            [sys.executable, "-m", "pytest", "-o", f"i3tasks_publish={told}", *inner],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert expected in run.stdout, run.stdout

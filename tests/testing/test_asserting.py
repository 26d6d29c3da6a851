"""What `assert_enqueued` finds, and what it says when it finds nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from i3tasks.exceptions import ArgumentError
from i3tasks.testing import all_enqueued, assert_enqueued, drain, refute_enqueued
from tests.shop import django_tasks
from tests.shop.tasks import aadd, add

pytestmark = pytest.mark.django_db


def test_it_finds_calls_however_their_arguments_were_spelt() -> None:
    add.delay(1, right=2)
    assert_enqueued(add)
    assert_enqueued(add, args=(1, 2))
    assert_enqueued(add, kwargs={"left": 1, "right": 2})
    assert_enqueued(add, count=1)
    refute_enqueued(add, args=(2, 1))
    refute_enqueued(aadd)


def test_it_finds_by_queue_and_time() -> None:
    add.using(queue_name="heavy", run_after=timedelta(hours=1)).delay(1, 2)
    assert_enqueued(add, queue="heavy", run_after=timedelta(hours=1))
    refute_enqueued(add, queue="default")
    refute_enqueued(add, run_after=timedelta(hours=2))


def test_finished_calls_count_unless_only_waiting_ones_are_asked_for() -> None:
    add.delay(1, 2)
    drain()
    assert_enqueued(add)
    assert all_enqueued(add, waiting=True) == []


def test_tasks_of_django_count_too() -> None:
    django_tasks.multiply.enqueue(2, 3)
    [call] = assert_enqueued(django_tasks.multiply, args=(2, 3))
    assert call.task_name == "multiply"


def test_a_failure_says_what_was_enqueued_instead() -> None:
    with pytest.raises(AssertionError, match="Nothing was enqueued"):
        assert_enqueued(add)
    add.delay(1, right=2)
    with pytest.raises(AssertionError) as failure:
        assert_enqueued(aadd, args=(1, 2))
    assert "No call of tests.shop.tasks.aadd with args=(1, 2) was enqueued" in str(failure.value)
    assert "tests.shop.tasks.add(1, right=2) on default" in str(failure.value)
    with pytest.raises(AssertionError, match=r"1 calls of tests\.shop\.tasks\.add were enqueued, not 2"):
        assert_enqueued(add, count=2)


def test_wrong_questions_are_refused() -> None:
    with pytest.raises(ArgumentError, match="is no task"):
        assert_enqueued("add")
    with pytest.raises(ArgumentError, match="does not take"):
        assert_enqueued(add, args=(1, 2, 3))
    with pytest.raises(ArgumentError, match="say which one"):
        assert_enqueued(args=(1,))

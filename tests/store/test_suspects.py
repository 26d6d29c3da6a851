"""What may be what kills workers is leased by each of them one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.utils import timezone

from i3tasks.clock import SYSTEM_CLOCK
from i3tasks.exceptions import WorkerLost
from i3tasks.models import TaskExecutionTry
from i3tasks.outcome import Failure, Success
from i3tasks.retry import RetryPolicy
from i3tasks.store.dispatching import expire_leases
from i3tasks.store.leases import claim
from i3tasks.store.refs import Claimed, Refusal, Settlement
from i3tasks.store.settle import settle
from i3tasks.store.suspects import LONGEST_PUT_OFF, PUT_OFF, SLOTS
from tests.store.helpers import enqueue, lease, request, row

pytestmark = pytest.mark.django_db


def lose(*tries: Any) -> list[TaskExecutionTry]:
    """Their worker took them and died: what comes next."""
    claimed = lease(*tries)
    TaskExecutionTry.objects.filter(lease_until__isnull=False).update(lease_until=timezone.now() - timedelta(seconds=1))
    expire_leases(100)
    nexts = TaskExecutionTry.objects.filter(task_execution__in=[item.execution_id for item in claimed])
    nexts.update(run_after=None)
    return [*nexts.filter(is_completed=False).order_by("pk")]


def suspects(count: int) -> Iterator[TaskExecutionTry]:
    for task_try in enqueue(count):
        [second] = lose(task_try)
        yield from lose(second)


def ask(*tries: Any, worker_id: str = "me", **changes: Any) -> list[Any]:
    return list(claim([request(task_try, worker_id=worker_id, **changes) for task_try in tries]))


def test_of_a_batch_one_is_leased_and_the_others_come_again_one_by_one() -> None:
    tries = [*suspects(5)]
    before = timezone.now()
    first, *others = ask(*tries)
    assert isinstance(first, Claimed)
    assert others == [Refusal.SUSPECT] * 4
    put_off = [row(task_try) for task_try in tries[1:]]
    assert {(task_try.claim_token, task_try.started_at, task_try.publish_count) for task_try in put_off} == {
        (None, None, 0)
    }
    moments = [task_try.dispatch_at for task_try in put_off]
    assert all(moment is not None and moment >= before for moment in moments)
    steps = {later - earlier for earlier, later in pairwise(moments)}  # type: ignore[operator]
    assert steps == {PUT_OFF / 4}


def test_the_next_is_leased_once_the_first_has_ended() -> None:
    one, other = suspects(2)
    [first] = ask(one)
    assert ask(other) == [Refusal.SUSPECT]
    settle([Settlement(first.try_id, first.execution_id, first.token, Success(None))])
    [second] = ask(other)
    assert isinstance(second, Claimed)


def test_another_worker_runs_one_of_its_own() -> None:
    one, other = suspects(2)
    assert isinstance(ask(one)[0], Claimed)
    assert isinstance(ask(other, worker_id="another")[0], Claimed)


def test_what_has_not_been_lost_twice_is_no_suspect() -> None:
    new = enqueue(2)
    [lost_once] = lose(*enqueue())
    [suspect] = suspects(1)
    answers = ask(*new, lost_once, suspect)
    assert all(isinstance(answer, Claimed) for answer in answers)


def test_a_claim_asked_again_after_a_lost_reply_gets_the_same_answer() -> None:
    tries = [*suspects(3)]
    [first, *_] = ask(tries[1])
    again, *others = ask(tries[1], *tries, token=first.token)
    assert again.try_id == first.try_id
    assert others == [Refusal.SUSPECT, Refusal.LEASED, Refusal.SUSPECT]


def test_the_longer_one_runs_the_less_often_the_others_ask() -> None:
    one, *others = suspects(3)
    [first] = ask(one)
    for running, longest in ((20, timedelta(seconds=20)), (3600, LONGEST_PUT_OFF)):
        TaskExecutionTry.objects.filter(pk=first.try_id).update(
            started_at=first.started_at - timedelta(seconds=running)
        )
        ask(*others)
        moments = [row(task_try).dispatch_at for task_try in others]
        assert moments[1] - moments[0] == pytest.approx(longest / 2, abs=timedelta(seconds=5))


def test_many_are_put_off_by_few_statements(django_assert_max_num_queries: Any) -> None:
    tries = [*suspects(30)]
    with django_assert_max_num_queries(SLOTS + 12):
        answers = ask(*tries)
    assert answers.count(Refusal.SUSPECT) == 29


def test_whose_own_process_died_is_no_suspect() -> None:
    """The worker outlived it, and said so itself."""
    error = WorkerLost("The process that ran the body died.")
    waiting = enqueue(2)
    for number in (1, 2):
        for claimed in lease(*waiting):
            failure = Failure.of(error, RetryPolicy(base_seconds=0), number, SYSTEM_CLOCK)
            settle([Settlement(claimed.try_id, claimed.execution_id, claimed.token, failure)])
        waiting = [*TaskExecutionTry.objects.filter(is_completed=False)]
    assert all(isinstance(answer, Claimed) for answer in ask(*waiting))

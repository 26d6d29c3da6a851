"""What may be what kills workers is leased by each of them one at a time, or few at a time while retries are left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.utils import timezone

from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.outcome import Failure, Success
from i3tasks.core.retry import RetryPolicy
from i3tasks.exceptions import WorkerLost
from i3tasks.models import TaskExecutionTry
from i3tasks.store.claims import claim
from i3tasks.store.enqueue import NewExecution
from i3tasks.store.expiry import expire_leases
from i3tasks.store.requests import Claimed, Refusal, Settlement
from i3tasks.store.settle import settle
from i3tasks.store.suspects import LONGEST_PUT_OFF, MOST_TOGETHER, PUT_OFF, SLOTS
from tests.store.helpers import ADD, enqueue, lease, request, row

pytestmark = pytest.mark.django_db

LAST = replace(ADD, options={"max_retries": 2})
"""A call whose third try is its last."""
MANY = replace(ADD, options={"max_retries": 50})


def lose(*tries: Any) -> list[TaskExecutionTry]:
    """Their worker took them and died: what comes next."""
    claimed = lease(*tries)
    TaskExecutionTry.objects.filter(lease_until__isnull=False).update(lease_until=timezone.now() - timedelta(seconds=1))
    expire_leases(100, clock=SYSTEM_CLOCK)
    nexts = TaskExecutionTry.objects.filter(task_execution__in=[item.execution_id for item in claimed])
    nexts.update(run_after=None)
    return [*nexts.filter(is_completed=False).order_by("pk")]


def suspects(count: int, call: NewExecution = LAST, *, losses: int = 2) -> Iterator[TaskExecutionTry]:
    for task_try in enqueue(count, call):
        for _ in range(losses):
            [task_try] = lose(task_try)
        yield task_try


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
    assert steps == {PUT_OFF}


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
    for running, longest in ((20, timedelta(seconds=20)), (3600, LONGEST_PUT_OFF)):  # a slot is half of it
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


@pytest.mark.parametrize(("losses", "together"), [(2, MOST_TOGETHER), (3, MOST_TOGETHER // 2), (6, 1)])
def test_while_retries_are_left_few_run_together_and_fewer_after_each_loss(losses: int, together: int) -> None:
    answers = ask(*suspects(together + 2, MANY, losses=losses))
    assert [type(answer) for answer in answers].count(Claimed) == together
    assert answers.count(Refusal.SUSPECT) == 2


def test_one_without_a_retry_left_runs_beside_no_other() -> None:
    [last] = suspects(1)
    *some, another = suspects(4, MANY)
    [refused, *claimed] = ask(last, *some)
    assert refused is Refusal.SUSPECT
    assert all(isinstance(answer, Claimed) for answer in claimed)
    settle([Settlement(one.try_id, one.execution_id, one.token, Success(None)) for one in claimed])
    [alone] = ask(last)
    assert isinstance(alone, Claimed)
    assert ask(another) == [Refusal.SUSPECT]

"""Leases: each try goes to one claimant, every refusal has its name, and no open transaction stops others."""

import random
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.outcome import Success
from i3tasks.models import TaskExecution, TaskExecutionResult, TaskExecutionTry
from i3tasks.store.claims import claim
from i3tasks.store.dispatching import confirm_published, take_due
from i3tasks.store.enqueue import NewExecution
from i3tasks.store.leases import renew
from i3tasks.store.requests import LOCKED, Claimed, Refusal, Renewed, TryRef
from i3tasks.store.settle import settle
from tests.store.helpers import (
    at,
    columns,
    enqueue,
    in_threads,
    lease,
    open_transaction,
    queries_of,
    request,
    row,
    says,
)

pytestmark = pytest.mark.django_db


class Heartbeat:
    def __init__(self, *claimed: Claimed, **tokens: Any) -> None:
        self.leases = {item.try_id: item.token for item in claimed}
        self.lease_seconds = 30.0


def only(answers: Any) -> Any:
    [answer] = answers
    return answer


def test_a_claim_leases_the_try_and_says_what_to_run() -> None:
    call = NewExecution("m", "f", [1], {"x": 2}, queue_name="heavy")
    [task_try] = enqueue(call=call)
    asked = request(task_try, worker_id="me", lease_seconds=45)
    claimed = only(claim([asked]))
    stored = row(task_try)
    assert (claimed.module_name, claimed.func_name, claimed.args, claimed.kwargs) == ("m", "f", [1], {"x": 2})
    assert (claimed.try_id, claimed.execution_id, claimed.try_number) == (stored.pk, stored.task_execution_id, 1)
    assert (claimed.execution_uuid, claimed.queue_name) == (stored.task_execution.uuid, "heavy")
    assert (claimed.token, claimed.overrides, claimed.due_since) == (asked.token, {}, stored.asked_at)
    assert (stored.claim_token, stored.worker_id, stored.dispatch_at) == (asked.token, "me", None)
    assert stored.started_at == claimed.started_at
    assert stored.lease_until - stored.started_at == timedelta(seconds=45)  # type: ignore[operator]
    assert not stored.is_completed


def test_there_is_no_such_try() -> None:
    [task_try] = enqueue()
    assert only(claim([request(task_try, try_id=task_try.pk + 1000)])) is Refusal.UNKNOWN
    assert only(claim([request(task_try, execution_id=task_try.task_execution_id + 1)])) is Refusal.UNKNOWN
    assert row(task_try).claim_token is None


def test_a_leased_try_is_refused_even_when_the_lease_is_over() -> None:
    [task_try] = enqueue()
    [claimed] = lease(task_try)
    assert only(claim([request(task_try)])) is Refusal.LEASED
    next_year = at(timezone.now() + timedelta(days=365))
    assert only(claim([request(task_try)], now=next_year)) is Refusal.LEASED, "expiry ends the try; no worker takes it"
    assert row(task_try).claim_token == claimed.token


def test_it_is_completed() -> None:
    [task_try] = enqueue()
    [claimed] = lease(task_try)
    settle([says(claimed, Success(1))])
    assert only(claim([request(task_try)])) is Refusal.COMPLETED
    assert only(claim([request(task_try, token=claimed.token)])) is Refusal.COMPLETED


def test_its_execution_is_cancelled() -> None:
    [task_try] = enqueue()
    TaskExecution.objects.update(cancel_requested_at=timezone.now())
    assert only(claim([request(task_try)])) is Refusal.CANCELLED


def test_it_is_not_due_until_its_time() -> None:
    later = timezone.now() + timedelta(hours=1)
    [task_try] = enqueue(call=NewExecution("m", "f", [], {}, run_after=later))
    assert only(claim([request(task_try)])) is Refusal.NOT_DUE
    assert only(claim([request(task_try)], now=at(later - timedelta(microseconds=1)))) is Refusal.NOT_DUE
    [after] = columns("claim_token", "dispatch_at", "publish_count")
    assert after == {"claim_token": None, "dispatch_at": later + timedelta(microseconds=1), "publish_count": 0}
    claimed = only(claim([request(task_try)], now=at(later)))
    assert (claimed.started_at, claimed.due_since) == (later, later)


def test_the_same_token_again_is_a_success() -> None:
    """COMMIT's reply was lost, and the writer asks once more."""
    first, second = enqueue(2)
    asked = [request(first), request(second)]
    before = claim(asked)
    again = claim(asked)
    assert [item.token for item in again] == [item.token for item in before]  # type: ignore[union-attr]
    assert all(isinstance(item, Claimed) for item in again)


def test_a_try_asked_for_twice_in_a_batch_goes_to_the_first() -> None:
    first, second = enqueue(2)
    answers = claim([request(first), request(first, worker_id="w2"), request(second), request(first)])
    assert [answer if isinstance(answer, Refusal) else answer.try_id for answer in answers] == [  # type: ignore[union-attr]
        first.pk, Refusal.LEASED, second.pk, Refusal.LEASED,
    ]  # fmt: skip


def test_two_loops_over_one_writer_each_get_leases_of_their_own() -> None:
    """Their requests come in one batch, and each row names the worker that runs it, for as long as that one asked."""
    tries = enqueue(4)
    loops = [{"worker_id": "one", "lease_seconds": 30.0}, {"worker_id": "two", "lease_seconds": 90.0}]
    answers = claim([request(task_try, **loops[index % 2]) for index, task_try in enumerate(tries)])
    assert all(isinstance(answer, Claimed) for answer in answers)
    for index, (task_try, answer) in enumerate(zip(tries, answers, strict=True)):
        stored, loop = row(task_try), loops[index % 2]
        assert (stored.worker_id, stored.claim_token) == (loop["worker_id"], answer.token)  # type: ignore[union-attr]
        assert stored.started_at is not None
        assert stored.lease_until == stored.started_at + timedelta(seconds=loop["lease_seconds"])  # type: ignore[arg-type]
    assert len({answer.token for answer in answers}) == 2  # type: ignore[union-attr]


def test_a_try_that_two_workers_ask_for_in_one_batch_goes_to_the_first() -> None:
    [task_try] = enqueue()
    first, second = claim([request(task_try, worker_id="one"), request(task_try, worker_id="two")])
    assert isinstance(first, Claimed)
    assert second is Refusal.LEASED
    assert row(task_try).worker_id == "one"


@pytest.mark.parametrize("is_confirmed_first", [True, False])
def test_a_message_that_came_too_early_is_published_again_at_its_time(is_confirmed_first: bool) -> None:
    """The caller's clock is ahead of the database's, so that it publishes before the database lets the try run."""
    due = timezone.now() + timedelta(seconds=0.3)
    [task_try] = enqueue(call=NewExecution("m", "f", [], {}, run_after=due))
    published = TryRef.of(task_try)
    if is_confirmed_first:
        confirm_published([published], now=due - timedelta(seconds=0.2))
    assert only(claim([request(task_try)], now=due - timedelta(seconds=0.1))) is Refusal.NOT_DUE
    confirm_published([published], now=due + timedelta(seconds=0.1))
    [taken] = take_due(10, now=due + timedelta(seconds=0.2))
    assert taken.try_id == task_try.pk
    assert isinstance(only(claim([request(task_try)], now=due + timedelta(seconds=0.2))), Claimed)


def test_each_of_a_mixed_batch_gets_its_own_answer_and_its_own_row() -> None:
    good, held, late = (
        *enqueue(2),
        *enqueue(call=NewExecution("m", "f", [], {}, run_after=timezone.now() + timedelta(1))),
    )
    lease(held)
    answers = claim([request(held), request(late), request(good), request(good, try_id=10**9)])
    assert isinstance(answers[2], Claimed)
    assert (answers[0], answers[1], answers[3]) == (Refusal.LEASED, Refusal.NOT_DUE, Refusal.UNKNOWN)
    assert answers[2].try_id == good.pk


def test_every_claim_of_a_batch_can_settle_with_the_token_it_was_given() -> None:
    claimed = lease(*enqueue(3))
    settle([says(item, Success(None)) for item in claimed])
    assert columns("is_success") == [{"is_success": True}] * 3


def test_the_number_of_statements_does_not_grow_with_the_batch() -> None:
    one, many = enqueue(1), enqueue(100)
    assert queries_of(lambda: lease(*one)) == queries_of(lambda: lease(*many))


@pytest.mark.django_db(transaction=True)
def test_four_threads_claiming_the_same_tries_win_each_exactly_once() -> None:
    tries = enqueue(200)

    def claim_all(seed: int) -> list[int]:
        won = []
        mine = random.Random(seed).sample(tries, len(tries))
        for start in range(0, len(mine), 20):
            answers = claim([request(item, worker_id=f"w{seed}") for item in mine[start : start + 20]], wait=True)
            won += [answer.try_id for answer in answers if isinstance(answer, Claimed)]
        return won

    won = in_threads([lambda seed=seed: claim_all(seed) for seed in range(4)])  # type: ignore[misc]
    assert sorted(pk for part in won for pk in part) == sorted(item.pk for item in tries)
    for seed, part in enumerate(won):
        assert set(TaskExecutionTry.objects.filter(worker_id=f"w{seed}").values_list("pk", flat=True)) == set(part)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_locked_try_is_locked_and_its_neighbours_are_fine() -> None:
    held, free = enqueue(2)
    with open_transaction(f"SELECT 1 FROM i3tasks_taskexecutiontry WHERE id = {held.pk} FOR UPDATE"):
        answers = claim([request(held), request(free)])
    assert answers[0] is LOCKED
    assert isinstance(answers[1], Claimed)
    assert isinstance(only(claim([request(held)])), Claimed)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_users_uncommitted_foreign_key_to_the_execution_stops_nothing() -> None:
    [task_try] = enqueue()
    columns_and_values = (
        "(created_at, updated_at, asked_at, task_execution_id, try_number, is_completed, is_success)"
        f" VALUES (now(), now(), now(), {task_try.task_execution_id}, 99, false, false)"
    )
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '2s'")
    with open_transaction(f"INSERT INTO i3tasks_taskexecutiontry {columns_and_values}"):
        [claimed] = lease(task_try)
        assert renew([Heartbeat(claimed)]) == [Renewed(frozenset(), frozenset())]
        [settled] = settle([says(claimed, Success(1))])
        assert settled is not LOCKED
    assert row(task_try).is_success


# What django-i3tasks leaves: a failed try has a result, but is never marked as completed; its redelivery is likely,
# because it sleeps its backoff while the message waits for its answer.
def test_a_try_that_an_old_worker_failed_is_completed() -> None:
    [task_try] = enqueue()
    TaskExecutionTry.objects.update(started_at=timezone.now(), dispatch_at=None)
    TaskExecutionResult.objects.create(task_execution_try=task_try, result="no money")
    assert only(claim([request(task_try)])) is Refusal.COMPLETED


def test_a_try_of_an_old_package_that_has_no_result_can_be_claimed() -> None:
    """Its worker may have died: nothing else would ever run it."""
    [task_try] = enqueue()
    TaskExecutionTry.objects.update(started_at=timezone.now(), dispatch_at=None)
    lease(task_try)


# ------------------------------------------------------------------------------------------------------------- renew


def test_a_heartbeat_moves_the_end_of_all_leases() -> None:
    claimed = lease(*enqueue(2))
    soon = timezone.now() + timedelta(seconds=20)
    assert renew([Heartbeat(*claimed)], now=at(soon)) == [Renewed(frozenset(), frozenset())]
    assert columns("lease_until") == [{"lease_until": soon + timedelta(seconds=30)}] * 2


def test_a_heartbeat_without_leases_is_nothing() -> None:
    assert renew([Heartbeat()]) == [Renewed(frozenset(), frozenset())]


def test_what_is_no_longer_ours_is_lost_and_left_alone() -> None:
    kept, taken, done, gone = lease(*enqueue(4))
    settle([says(done, Success(1))])
    other = SYSTEM_CLOCK.new_uuid7()
    TaskExecutionTry.objects.filter(pk=taken.try_id).update(claim_token=other)
    TaskExecution.objects.filter(pk=gone.execution_id).delete()
    before = row(taken.try_id).lease_until
    [answer] = renew([Heartbeat(kept, taken, done, gone)], now=at(timezone.now() + timedelta(seconds=5)))
    assert answer == Renewed(frozenset({taken.try_id, done.try_id, gone.try_id}), frozenset())
    assert row(taken.try_id).lease_until == before
    assert row(done.try_id).lease_until is None


def test_a_lease_that_ran_out_but_was_not_expired_is_still_ours() -> None:
    """After an outage of the database every lease looks dead."""
    [claimed] = lease(*enqueue())
    late = timezone.now() + timedelta(hours=1)
    assert renew([Heartbeat(claimed)], now=at(late)) == [Renewed(frozenset(), frozenset())]
    assert row(claimed.try_id).lease_until == late + timedelta(seconds=30)


def test_a_cancel_request_is_reported_and_a_lost_try_is_not_cancelled() -> None:
    ours, lost = lease(*enqueue(2))
    TaskExecution.objects.update(cancel_requested_at=timezone.now())
    TaskExecutionTry.objects.filter(pk=lost.try_id).update(claim_token=SYSTEM_CLOCK.new_uuid7())
    [answer] = renew([Heartbeat(ours, lost)])
    assert answer == Renewed(frozenset({lost.try_id}), frozenset({ours.try_id}))


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_locked_lease_is_neither_lost_nor_waited_for() -> None:
    held, free = lease(*enqueue(2))
    before = row(held.try_id).lease_until
    with open_transaction(f"SELECT 1 FROM i3tasks_taskexecutiontry WHERE id = {held.try_id} FOR UPDATE"):
        answer = renew([Heartbeat(held, free)], now=at(timezone.now() + timedelta(seconds=9)))
    assert answer == [Renewed(frozenset(), frozenset())]
    assert row(held.try_id).lease_until == before
    assert row(free.try_id).lease_until > before  # type: ignore[operator]

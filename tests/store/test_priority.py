"""Priority at a claim: a message is a ticket for its queue, and the rows say whose turn it is."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from django.utils import timezone

from i3tasks.core.outcome import Released, Success
from i3tasks.models import TaskExecutionTry
from i3tasks.store.cancel import cancel
from i3tasks.store.claims import claim
from i3tasks.store.dispatching import confirm_published, put_back, take_due
from i3tasks.store.enqueue import NewExecution, from_step, insert
from i3tasks.store.fallback import WaitingRequest, take_waiting
from i3tasks.store.priority import levels
from i3tasks.store.requests import Claimed, ClaimRequest, Refusal, TryRef
from i3tasks.store.settle import settle
from tests.store.helpers import (
    ADD,
    at,
    enqueue,
    failure,
    in_threads,
    lease,
    open_transaction,
    plans,
    queries_of,
    request,
    row,
    says,
)

pytestmark = pytest.mark.django_db(transaction=True)

DEFAULT = replace(ADD, queue_name="default")


def published(count: int = 1, priority: int = 0, *, age: float = 0, **changes: Any) -> list[TaskExecutionTry]:
    """Tries whose messages are out. `age` is for how many seconds they have been waiting."""
    tries = enqueue(count, replace(DEFAULT, priority=priority, **changes))
    if age:
        since = timezone.now() - timedelta(seconds=age)
        TaskExecutionTry.objects.filter(pk__in=[item.pk for item in tries]).update(asked_at=since)
    confirm_published([TryRef.of(task_try) for task_try in tries])
    return tries


def ticket(task_try: TaskExecutionTry, **changes: Any) -> ClaimRequest:
    return request(task_try, is_ticket=True, **changes)


def brought(*tickets: ClaimRequest | TaskExecutionTry, **options: Any) -> list[Any]:
    """What these tickets brought, in one batch: ids of tries, or the reasons why there is none."""
    asked = [item if isinstance(item, ClaimRequest) else ticket(item) for item in tickets]
    return [item.try_id if isinstance(item, Claimed) else item for item in claim(asked, **options)]


def ids(tries: list[TaskExecutionTry]) -> list[int]:
    return [task_try.pk for task_try in tries]


def test_a_ticket_brings_the_highest_of_its_queue_and_its_own_try_is_due_anew() -> None:
    [low] = published()
    [_, high] = [*published(1, 3), *published(1, 5)]
    [answer] = claim([ticket(low)])
    assert isinstance(answer, Claimed)
    assert (answer.try_id, answer.execution_id, answer.args) == (high.pk, high.task_execution_id, [1, 2])
    displaced = row(low)
    assert (displaced.publish_count, displaced.started_at, displaced.claim_token) == (0, None, None)
    assert answer.displaced == TryRef.of(displaced)
    [again] = take_due(10, now=at(timezone.now() + timedelta(seconds=61)))  # should its publish be lost
    assert again.try_id == low.pk
    assert brought(high) == [Refusal.LEASED]  # by the message of the one that was taken, later


def test_who_asks_for_no_ticket_gets_what_it_asks_for() -> None:
    [low, _] = [*published(), *published(1, 5)]
    [answer] = claim([request(low)])
    assert isinstance(answer, Claimed)
    assert (answer.try_id, answer.displaced) == (low.pk, None)


def test_a_call_in_the_callers_thread_runs_its_own_try() -> None:
    [low, _] = [*published(), *published(1, 5)]
    assert brought(low, wait=True) == [low.pk]


@pytest.mark.parametrize("priority", [0, 4, -4])
def test_among_equals_each_ticket_brings_its_own(priority: int) -> None:
    tries = published(3, priority)
    assert brought(*reversed(tries)) == ids(tries)[::-1]


@pytest.mark.parametrize(("low", "high"), [(-10, 0), (-10, -9), (0, 1), (-100, 100)])
def test_any_higher_one_is_first(low: int, high: int) -> None:
    [waiting], [first] = published(1, low), published(1, high)
    assert brought(waiting) == [first.pk]


def test_of_a_batch_the_lowest_tickets_bring_the_highest_tries() -> None:
    low, middle, high = published(2), published(2, 1), published(3, 9)
    found = brought(*low, middle[0], high[0])
    assert found[2:] == [middle[0].pk, high[0].pk]
    assert sorted(found[:2]) == ids(high[1:])


def test_only_what_waits_on_the_same_queue_counts() -> None:
    [low], [_] = published(), published(1, 5, queue_name="heavy")
    assert brought(low) == [low.pk]


def test_what_a_request_may_not_have_is_no_ticket() -> None:
    [low], [_] = published(), published(1, 5)
    assert brought(ticket(low, queues=frozenset(["heavy"]))) == [Refusal.UNKNOWN]
    assert row(low).publish_count == 1
    assert brought(ticket(low, execution_id=10**9)) == [Refusal.UNKNOWN]


def test_the_tickets_of_a_worker_bring_as_many_sync_functions_as_it_has_threads_for() -> None:
    low = published(4)
    functions = published(4, 5)
    asked = [ticket(item, spare_threads=spare) for item, spare in zip(low[:3], (2, 1, 2), strict=True)]
    found = brought(*asked, ticket(low[3]))
    assert len({*found} & {*ids(functions)}) == 2, "one for all that share, and one for that with a thread of its own"
    assert found[3] in ids(functions)
    assert len({*found} & {*ids(low)}) == 2


def test_what_does_not_wait_for_a_worker_is_passed_over() -> None:
    [low], *others = published(), *(published(1, 9) for _ in range(4))
    [[ended], [running], [handed_back], [cancelled]] = others
    settle([says(lease(ended)[0], Success(1)), says(lease(handed_back)[0], Released(timedelta(minutes=1)))])
    lease(running)
    cancel([cancelled.task_execution_id], now=timezone.now())
    enqueue(1, replace(DEFAULT, priority=9))  # its publish is not confirmed
    enqueue(1, replace(DEFAULT, priority=9, run_after=timezone.now() + timedelta(days=1)))
    assert brought(low) == [low.pk]


def test_a_ticket_of_a_try_that_can_not_be_claimed_brings_nothing() -> None:
    [low], [high] = published(), published(1, 5)
    lease(low)
    assert brought(low) == [Refusal.LEASED]
    assert row(high).claim_token is None


def test_what_waits_gains_a_point_for_each_span_of_time(settings: Any) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, priority_aging_seconds=60)
    [high] = published(1, 2)
    [old], [older] = published(1, age=110), published(1, age=130)
    assert brought(older) == [older.pk]
    assert brought(old) == [high.pk]


def test_without_aging_the_higher_one_is_always_first(settings: Any) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, priority_aging_seconds=None)
    [high], [old] = published(1, 1), published(1, age=10**8)
    assert brought(old) == [high.pk]


def test_a_retry_and_a_step_have_the_priority_of_their_call() -> None:
    [first] = published(1, 7)
    settle([says(lease(first)[0], failure(delay=0))])
    retry = TaskExecutionTry.objects.get(try_number=2)
    assert (retry.priority, retry.queue_name) == (7, "default")
    step = from_step({"module_name": "m", "func_name": "f", "priority": -3, "queue_name": "heavy"}, [])
    [task_try] = insert([step], now=timezone.now())
    assert (row(task_try).priority, row(task_try).queue_name) == (-3, "heavy")


def test_a_repeat_after_a_lost_answer_brings_the_same() -> None:
    [low], [high], [other] = published(), published(1, 5), published(1, 4)
    asked = ticket(low)
    assert brought(asked) == [high.pk]
    assert brought(asked) == [high.pk]
    assert row(other).claim_token is None
    assert row(low).dispatch_at is not None


def test_a_repeat_after_a_rollback_looks_anew() -> None:
    [low], [high], [other] = published(), published(1, 5), published(1, 4)
    asked = ticket(low)
    asked.taken.append((high.pk, high.task_execution_id))
    lease(high, worker_id="w2")
    assert brought(asked) == [other.pk]


def test_a_try_that_is_refused_after_all_displaces_nothing() -> None:
    [low], [high] = published(), published(1, 5)
    with (
        mock.patch("i3tasks.store.claims._refusal", side_effect=lambda bid, token: None),
        mock.patch("i3tasks.store.claims.are_known", return_value=False),
        mock.patch("i3tasks.store.claims.put_off_suspects", side_effect=[{high.pk}, set()]),
    ):
        assert brought(low) == [low.pk]


def test_two_workers_bring_different_ones_and_nothing_is_lost() -> None:
    low, high = published(6), published(6, 5)
    found = in_threads([lambda: brought(*low[:3]), lambda: brought(*low[3:])])
    assert sorted(found[0] + found[1]) == ids(high)
    due = take_due(100, now=at(timezone.now() + timedelta(seconds=61)))
    assert sorted(ref.try_id for ref in due) == ids(low)


@pytest.mark.postgres
def test_a_ticket_whose_row_is_locked_waits_and_displaces_nothing() -> None:
    [low], [high] = published(), published(1, 5)
    with open_transaction(f"SELECT 1 FROM i3tasks_taskexecutiontry WHERE id = {low.pk} FOR UPDATE"):
        [answer] = claim([ticket(low)])
        assert not isinstance(answer, (Claimed, Refusal))
    assert (row(low).publish_count, row(high).claim_token) == (1, None)


@pytest.mark.postgres
def test_where_all_are_equal_it_is_no_statement_of_its_own(settings: Any) -> None:
    tries, others = published(20), published(20)
    assert queries_of(lambda: brought(*tries)) == 1
    assert queries_of(lambda: claim([request(task_try) for task_try in others])) == 1


@pytest.mark.postgres
def test_while_others_of_another_priority_wait_no_claim_is_made_in_vain() -> None:
    [other] = published(1, 5, queue_name="heavy")
    tries = [published(2) for _ in range(5)]
    statements = [queries_of(lambda pair=pair: brought(*pair)) for pair in tries[:2]]  # type: ignore[misc]
    assert statements == [4, 2], "the first one learns of it"
    lease(other)
    statements = [queries_of(lambda pair=pair: brought(*pair)) for pair in tries[2:]]  # type: ignore[misc]
    assert statements == [2, 1, 1], "the first one learns that it is gone"
    assert TaskExecutionTry.objects.filter(claim_token__isnull=False).count() == 11


@pytest.mark.postgres
def test_the_question_reads_nothing_that_is_deferred_or_over() -> None:
    def asked() -> Any:
        enqueue(50, replace(DEFAULT, priority=9, run_after=timezone.now() + timedelta(days=1)))
        return brought(*published(2))

    [plan] = [plan for plan in plans(asked, deferred=5000) if "levels" in plan]
    for index in ("i3tasks_try_turn_idx", "i3tasks_try_ranked_idx"):
        assert index in plan, plan
    assert "i3tasks_try_waiting_idx" not in plan, plan
    assert "Seq Scan" not in plan, plan


@pytest.mark.postgres
def test_the_levels_of_several_queues_are_a_look_into_an_index_for_each() -> None:
    published(1, 5)
    published(1, -2, queue_name="heavy")
    published(1, 9, queue_name="of another worker")
    queues = [row(task_try).queue_name for task_try in [*published(), *published(queue_name="heavy")]]
    assert list(levels(queues)) == [5, 0, -2]

    looks = [
        plan for plan in plans(lambda: list(levels(queues)), deferred=5000) if "Aggregate" in plan or "Limit" in plan
    ]
    assert len(looks) >= 2
    for plan in looks:
        assert "i3tasks_try_turn_idx" in plan, plan


def test_higher_ones_are_first_and_no_one_starves(settings: Any) -> None:
    """A worker that ends one try a second, on a queue that gets one of priority 3 each second, besides four others."""
    settings.I3TASKS = replace(settings.I3TASKS, priority_aging_seconds=5)
    chance, begin, messages = random.Random(1), timezone.now(), list[TryRef]()
    waited = defaultdict[int, list[float]](list)

    def enqueue_at(now: datetime, *priorities: int) -> None:
        with mock.patch("django.utils.timezone.now", return_value=now):
            new = insert([replace(DEFAULT, priority=priority) for priority in priorities], now=now)
        send([TryRef.of(task_try) for task_try in new], now)

    def send(refs: list[TryRef], now: datetime) -> None:
        confirm_published(refs, now=at(now))
        messages.extend(refs)

    def run_one(now: datetime) -> None:
        while True:  # the messages of those that were taken by another's are refused
            ref = messages.pop(chance.randrange(len(messages)))
            asked = ClaimRequest(ref.try_id, ref.execution_id, uuid4(), "w1", 30, is_ticket=True)
            [answer] = claim([asked], now=at(now))
            if isinstance(answer, Claimed):
                waited[row(answer.try_id).priority].append((now - answer.asked_at).total_seconds())
                return send([answer.displaced], now) if answer.displaced is not None else None

    enqueue_at(begin, 0, 0, 0, 0)
    for second in range(40):
        enqueue_at(begin + timedelta(seconds=second), 3)
        run_one(begin + timedelta(seconds=second))
    assert len(waited[0]) == 4, waited
    assert min(waited[0]) > 14, waited
    assert max(waited[0]) < 30, waited
    assert max(waited[3][:15]) < 1, waited


@pytest.fixture
def line() -> list[list[TaskExecutionTry]]:
    return [enqueue(3, DEFAULT), enqueue(2, replace(DEFAULT, priority=5)), enqueue(2, replace(DEFAULT, priority=-5))]


@pytest.mark.parametrize("room", [1, 2, 4, 6, 100])
def test_a_worker_that_looks_into_the_rows_takes_them_in_the_same_order(line: Any, room: int) -> None:
    zero, high, low = line
    asked = WaitingRequest(("default",), None, timedelta(0), room, room)
    [refs] = take_waiting([asked], now=at(timezone.now() + timedelta(seconds=61)))
    assert [ref.try_id for ref in refs] == ids([*high, *zero, *low])[:room]


def test_rows_of_older_workers_have_their_turn(settings: Any) -> None:
    old, [high] = published(2), published(1, 5)
    TaskExecutionTry.objects.filter(pk__in=ids(old)).update(queue_name=None)
    assert brought(*old) == ids(old)
    put_back([TryRef.of(row(high))])
    asked = WaitingRequest(("default",), timedelta(0), timedelta(0), 2, 2)
    [refs] = take_waiting([asked], now=at(timezone.now() + timedelta(hours=1)))
    assert [ref.try_id for ref in refs] == [high.pk]


def test_the_call_of_a_task_with_its_own_topic_goes_by_its_own_messages() -> None:
    [own] = insert([NewExecution("m", "f", [], {}, queue_name=None, priority=9)], now=timezone.now())
    confirm_published([TryRef.of(own)])
    [low] = published()
    assert brought(low, own) == [low.pk, own.pk]

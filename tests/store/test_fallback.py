"""What waits in the rows and is taken without a message: which tries, in which order, by whom, at what cost."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from i3tasks import task
from i3tasks.core.outcome import Released, Success
from i3tasks.models import TaskExecutionTry
from i3tasks.store import fallback
from i3tasks.store.cancel import cancel
from i3tasks.store.claims import claim
from i3tasks.store.dispatching import confirm_published, deny_published, put_back, take_due
from i3tasks.store.fallback import WaitingRequest, take_unheard, take_waiting
from i3tasks.store.requests import LOCKED, Refusal, TryRef
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

FEW = timedelta(seconds=15)
ZERO = timedelta(0)
DEFAULT = replace(ADD, queue_name="default")


def taken(
    after: float = 0,
    *,
    queues: tuple[str, ...] = ("default",),
    published: timedelta | None = FEW,
    overdue: timedelta = FEW,
    room: int = 100,
    threads: int = 100,
    unsent: timedelta | None = None,
) -> list[int]:
    """Ids of what a worker gets that asks `after` seconds from now."""
    request = WaitingRequest(queues, published, overdue, room, threads, unsent)
    return [ref.try_id for ref in take_waiting([request], now=at(later(after)))[0]]


def later(seconds: float) -> datetime:
    return timezone.now() + timedelta(seconds=seconds)


def published(count: int = 1, **changes: Any) -> list[TaskExecutionTry]:
    tries = enqueue(count, replace(DEFAULT, **changes))
    confirm_published([TryRef.of(task_try) for task_try in tries])
    return tries


def test_what_was_published_is_left_alone_until_it_has_waited() -> None:
    [task_try] = published()
    assert taken(10) == []
    assert taken(20) == [task_try.pk]


def test_how_long_it_has_waited_is_known_after_any_number_of_publishes(settings: Any) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, lost_after_seconds=20_000)  # doubled three times at most
    for times in range(6):
        [task_try] = published()
        for _ in range(times):
            confirm_published([TryRef.of(row(task_try))])
        assert row(task_try).publish_count == times + 1
        assert taken(10) == []
        assert taken(20) == [task_try.pk]


def test_what_fell_due_long_ago_and_was_published_just_now_is_on_its_way() -> None:
    [task_try] = enqueue(1, DEFAULT)
    TaskExecutionTry.objects.update(asked_at=later(-3600))
    confirm_published([TryRef.of(task_try)])
    assert taken(1) == []
    assert taken(20) == [task_try.pk]


def test_while_no_stream_is_there_nothing_has_to_wait() -> None:
    [task_try] = published()
    assert taken(published=ZERO, overdue=ZERO) == [task_try.pk]


def test_while_no_message_is_taken_only_the_unpublished_are_of_interest() -> None:
    published()
    [unpublished] = enqueue(1, DEFAULT)
    assert taken(1, published=None, overdue=ZERO) == [], "its publish may be under way"
    put_back([TryRef.of(unpublished)])
    assert taken(1, published=None, overdue=ZERO) == [unpublished.pk]


def test_what_no_dispatcher_has_published_is_taken_at_last() -> None:
    [task_try] = enqueue(1, DEFAULT)  # its grace is 60 seconds
    assert taken(70) == []
    assert taken(80) == [task_try.pk]


def test_what_a_topic_refuses_is_taken_before_it_is_published_again() -> None:
    [task_try] = enqueue(1, DEFAULT)
    for seconds in (1, 6, 12):  # the pauses of the dispatcher grow with its age
        deny_published([TryRef.of(row(task_try))], now=at(later(seconds)))
    assert taken(16) == []
    assert taken(10, unsent=FEW) == []
    assert taken(16, unsent=FEW) == [task_try.pk]


def test_what_was_handed_back_is_not_taken_as_refused() -> None:
    [task_try] = enqueue(1, DEFAULT)
    TaskExecutionTry.objects.update(asked_at=later(-60), updated_at=later(-60))
    settle([says(lease(task_try)[0], Released(timedelta(seconds=30)))])
    assert taken(unsent=FEW) == []


def test_what_is_put_off_waits() -> None:
    [deferred] = published(run_after=later(300))
    [suspect] = published()
    [claimed] = lease(suspect)
    settle([says(claimed, Released(timedelta(minutes=1)))])
    assert taken(50, published=ZERO, overdue=ZERO) == []
    assert taken(70, published=ZERO, overdue=ZERO) == [suspect.pk]
    assert taken(290) == [suspect.pk], "the worker that took it did not claim it"
    assert taken(330) == [suspect.pk, deferred.pk]


@pytest.mark.parametrize("ahead", [0.3, 9])
@pytest.mark.parametrize("by", ["call", "retry"])
def test_a_clock_that_is_ahead_of_the_databases_keeps_no_try_of_a_database_queue_waiting(
    monkeypatch: pytest.MonkeyPatch, by: str, ahead: float
) -> None:
    real = timezone.now
    monkeypatch.setattr("django.utils.timezone.now", lambda: real() + timedelta(seconds=ahead))
    [task_try] = enqueue(1, DEFAULT)
    if by == "retry":
        settle([says(lease(task_try)[0], failure(delay=0))])
        task_try = TaskExecutionTry.objects.select_related("task_execution").latest("pk")
    confirm_published([TryRef.of(task_try)])
    monkeypatch.undo()
    assert row(task_try).asked_at > timezone.now()
    assert taken(published=ZERO, overdue=ZERO) == [task_try.pk]


def test_what_is_put_off_is_not_taken_early_for_that() -> None:
    published(run_after=later(5))
    assert taken(1, published=ZERO, overdue=ZERO) == []


def test_what_runs_has_ended_or_was_cancelled_is_not_taken() -> None:
    running, ended, cancelled = published(3)
    lease(running)
    settle([says(lease(ended)[0], Success(1))])
    cancel([cancelled.task_execution_id])
    assert taken(20) == []


def test_rows_of_django_i3tasks_are_left_to_their_messages() -> None:
    published()
    TaskExecutionTry.objects.update(dispatch_at=None)
    assert taken(20) == []


@task(topic_name="elsewhere")
def with_own_topic() -> None:
    """Goes to a topic that is no queue's."""


def test_only_of_the_queues_asked_for() -> None:
    [heavy] = published(queue_name="heavy")
    published(queue_name="push")
    [nameless] = published(queue_name=None)
    published(queue_name=None, module_name=__name__, func_name="with_own_topic")
    assert taken(20, queues=("heavy",)) == [heavy.pk]
    assert taken(20) == [nameless.pk], "no name is the default queue's, unless the task names a topic itself"


def test_the_longest_waiting_first_and_no_more_than_there_is_room_for() -> None:
    tries = published(5)
    for age, task_try in enumerate(tries):
        TaskExecutionTry.objects.filter(pk=task_try.pk).update(asked_at=later(-100 - age))
    assert taken(20, room=2) == [tries[4].pk, tries[3].pk]


def test_sync_functions_need_a_thread_each() -> None:
    published(3)
    coroutines = published(2, func_name="aadd")
    assert len(taken(20, threads=1)) == 3
    assert taken(20, threads=0) == []
    assert TaskExecutionTry.objects.filter(publish_count=0, pk__in=[one.pk for one in coroutines]).count() == 2


def test_coroutines_do_not_wait_behind_functions_that_have_no_thread() -> None:
    published(5)
    [coroutine] = published(1, func_name="aadd")
    assert taken(20, room=3, threads=0) == [coroutine.pk]


EVERYTHING: dict[str, Any] = {"published": ZERO, "overdue": ZERO, "unsent": ZERO}
"""What a worker would take that takes all it can."""


def test_what_was_taken_is_left_to_its_taker_for_seconds_and_then_free_for_all() -> None:
    """For a minute, the tries of a worker that died before their claims would be out of reach."""
    tries = published(3)
    first = taken(20, room=2)
    assert taken(20, **EVERYTHING | {"unsent": FEW}) == [tries[2].pk], "all that it takes is its own"
    assert take_due(10, now=at(later(20 + 2))) == []
    assert taken(20 + 2, published=ZERO, overdue=ZERO) == []
    assert {ref.try_id for ref in take_due(10, now=at(later(20 + 6)))} == {*first, tries[2].pk}


def test_what_was_taken_is_free_within_seconds_for_a_worker_without_pubsub() -> None:
    [task_try] = published()
    assert taken(20) == [task_try.pk]
    assert taken(26, published=ZERO, overdue=ZERO) == [task_try.pk]


def test_a_grace_that_is_shorter_counts(settings: Any) -> None:
    settings.I3TASKS = replace(settings.I3TASKS, publish_grace_seconds=1)
    [task_try] = published()
    assert taken(20) == [task_try.pk]
    assert [ref.try_id for ref in take_due(10, now=at(later(22)))] == [task_try.pk]


def test_a_claim_that_comes_after_that_decides_as_ever() -> None:
    [task_try] = published()
    assert taken(20) == [task_try.pk]
    [due] = take_due(10, now=at(later(26)))
    confirm_published([due])
    lease(task_try)
    [refused] = claim([request(task_try, worker_id="other")])
    assert refused is Refusal.LEASED


# ------------------------------------------------------------------------- what was never published though it was due


def test_what_a_dead_process_was_to_publish_is_taken_in_silence() -> None:
    """Its caller, a worker that had settled what it follows, or a dispatcher: it is theirs for the grace period."""
    [task_try] = enqueue(1, DEFAULT)
    take_due(10, now=at(later(61)))  # by a dispatcher that dies then
    assert taken(14, unsent=FEW) == []
    assert taken(16, unsent=FEW) == [task_try.pk]


def test_what_a_claim_or_another_worker_put_off_is_not_taken_for_unsent() -> None:
    tries = enqueue(2, DEFAULT)
    TaskExecutionTry.objects.update(asked_at=later(-60), updated_at=later(-60))
    settle([says(lease(tries[0])[0], Released(timedelta(seconds=30)))])
    assert taken(0, unsent=FEW) == [tries[1].pk]
    assert taken(1, unsent=FEW) == []


def test_what_is_to_come_is_never_unsent() -> None:
    enqueue(1, replace(DEFAULT, run_after=later(300)))
    assert taken(290, **EVERYTHING) == []


def test_what_was_taken_and_put_back_is_due_at_once() -> None:
    published()
    [[ref]] = take_waiting([WaitingRequest(("default",), FEW, FEW, 10, 10)], now=at(later(20)))
    put_back([ref])
    assert taken(1, published=None, overdue=ZERO) == [ref.try_id]


@pytest.mark.postgres
@pytest.mark.parametrize("strength", ["UPDATE", "NO KEY UPDATE", "SHARE"])
def test_what_was_taken_and_is_held_against_its_claim_is_put_back_once_it_is_free(strength: str) -> None:
    """Else it would wait until the grace is over: a minute."""
    held, free = published(2)
    [refs] = take_waiting([WaitingRequest(("default",), FEW, FEW, 10, 10)], now=at(later(20)))
    with open_transaction(f"SELECT 1 FROM i3tasks_taskexecutiontry WHERE id = {held.pk} FOR {strength}"):
        assert put_back(refs) == [LOCKED, None]
        assert taken(1, published=None, overdue=ZERO) == [free.pk]
    lease(free)
    assert put_back(refs) == [None, None]
    assert taken(1, published=None, overdue=ZERO) == [held.pk]


@pytest.mark.postgres
def test_of_what_has_gone_on_meanwhile_nothing_is_put_back() -> None:
    published()
    [[ref]] = take_waiting([WaitingRequest(("default",), FEW, FEW, 10, 10)], now=at(later(20)))
    [claimed] = lease(row(ref.try_id))
    with open_transaction(f"SELECT 1 FROM i3tasks_taskexecutiontry WHERE id = {claimed.try_id} FOR UPDATE"):
        assert put_back([ref]) == [None]


def test_a_late_confirmation_changes_nothing_of_what_was_taken() -> None:
    [task_try] = enqueue(1, DEFAULT)
    old = TryRef.of(task_try)
    put_back([old])
    assert taken(1, published=None, overdue=ZERO) == [task_try.pk]
    before = row(task_try).dispatch_at
    confirm_published([old])
    assert row(task_try).dispatch_at == before


@pytest.mark.postgres
def test_locked_tries_are_left_out() -> None:
    first, second = published(2)
    with open_transaction(f"SELECT 1 FROM i3tasks_taskexecutiontry WHERE id = {first.pk} FOR UPDATE"):
        assert taken(20) == [second.pk]


@pytest.mark.postgres
def test_executions_are_neither_locked_nor_waited_for() -> None:
    """A cancellation or a caller's own lock of an execution goes on beside it."""
    [task_try] = published()
    lock = f"SELECT 1 FROM i3tasks_taskexecution WHERE id = {task_try.task_execution_id} FOR UPDATE"
    with open_transaction(lock):
        assert taken(20) == [task_try.pk]
    with transaction.atomic():
        assert taken(60) == [task_try.pk]
        with open_transaction(f"{lock} NOWAIT"):
            pass


def test_workers_that_look_at_the_same_time_share() -> None:
    tries = published(40)
    asked = [lambda: taken(20, room=10)] * 4
    answers = in_threads(asked)
    together = [pk for answer in answers for pk in answer]
    assert sorted(together) == sorted(set(together)), "no try is given to two"
    assert set(together) <= {task_try.pk for task_try in tries}


def test_when_nothing_waits_it_is_one_statement() -> None:
    assert queries_of(lambda: taken(20)) == 1


@pytest.mark.postgres
@pytest.mark.parametrize("waits", [False, True], ids=["nothing waits", "others wait"])
@pytest.mark.parametrize(
    "wanted", [{}, EVERYTHING, {"published": None, "overdue": ZERO, "unsent": FEW}, {"threads": 0}]
)
def test_its_index_knows_waiting_rows_only(wanted: dict[str, Any], waits: bool) -> None:
    """So that neither ten million that have ended nor a million that are put off cost anything."""

    def look() -> None:
        if waits:
            published(queue_name="heavy")
        assert taken(20, **wanted) == []

    found = [plan for plan in plans(look, deferred=3000) if plan.startswith("Limit")]
    assert len(found) == 1 + waits
    for plan in found:
        assert "i3tasks_try_waiting_idx" in plan, plan
        assert "Seq Scan" not in plan, plan
        assert "Sort" not in plan, plan


class Explained:
    """Notes how PostgreSQL carries out each statement that locks rows, as it is set up at that moment."""

    def __init__(self) -> None:
        self.plans: list[str] = []

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("SELECT") and "SKIP LOCKED" in sql:
            with connection.connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN {sql}", params)
                self.plans.append("\n".join(line for (line,) in cursor.fetchall()))
        return execute(sql, params, many, context)


@pytest.mark.postgres
@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("queue", ["default", "push"])
def test_of_a_long_backlog_only_the_first_are_read(
    monkeypatch: pytest.MonkeyPatch, queue: str, is_ordered: bool
) -> None:
    """However few PostgreSQL takes them for: it sorted 300,000 that waited beside ten million, for a hundred."""
    if not is_ordered:
        monkeypatch.setattr(fallback, "in_index_order", nullcontext)
    published(300, queue_name=queue)
    TaskExecutionTry.objects.update(asked_at=later(-100), dispatch_at=later(3500))
    explained = Explained()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        cursor.execute("SET random_page_cost = 1000")  # so that reading by an index seems dear, as it does there
        try:
            with connection.execute_wrapper(explained):
                found = taken(room=10) if queue == "default" else unheard(0)
            cursor.execute("SHOW enable_sort")
            assert cursor.fetchone() == ("on",)
        finally:
            cursor.execute("RESET random_page_cost")
    assert found
    assert explained.plans
    assert any("Sort" in plan for plan in explained.plans) != is_ordered, explained.plans


# ------------------------------------------------------------------------------------------------ quiet push queues


def unheard(after: float) -> list[int]:
    """Ids of what is published again so many seconds from now."""
    refs = take_unheard("push", FEW, now=at(later(after)))
    confirm_published(refs, now=at(later(after)))
    return [ref.try_id for ref in refs]


def pushed(count: int = 1) -> list[int]:
    return [task_try.pk for task_try in published(count, queue_name="push")]


def test_a_quiet_push_queue_has_its_oldest_published_again_with_growing_pauses(monkeypatch: Any) -> None:
    monkeypatch.setattr(fallback, "MOST_UNHEARD", 3)
    ids = pushed(5)
    published(2)  # of another queue
    assert unheard(14) == []
    assert unheard(16) == ids[:3]
    assert unheard(16) == [], "the answer to these is waited for"
    assert unheard(16 + 29) == []
    assert unheard(16 + 31) == ids[:3]
    assert unheard(16 + 31 + 59) == []
    assert unheard(16 + 31 + 61) == ids[:3]


def test_while_they_are_being_published_no_others_are(monkeypatch: Any) -> None:
    monkeypatch.setattr(fallback, "MOST_UNHEARD", 3)
    pushed(6)
    assert len(take_unheard("push", FEW, now=at(later(16)))) == 3
    assert unheard(17) == []


def test_a_backlog_that_moves_is_not_quiet() -> None:
    running, ended, *_ = published(5, queue_name="push")
    TaskExecutionTry.objects.update(asked_at=later(-1000), dispatch_at=later(2600))  # published 1000 seconds ago
    lease(running)
    assert unheard(0) == [], "one runs"
    TaskExecutionTry.objects.filter(pk=running.pk).update(started_at=later(-100))
    settle([says(lease(ended)[0], Success(1))])
    assert unheard(0) == [], "one has run"
    TaskExecutionTry.objects.filter(pk=ended.pk).update(started_at=later(-100))
    assert len(unheard(0)) == 3


def test_what_is_put_off_or_was_never_published_is_not_unheard() -> None:
    published(run_after=later(300), queue_name="push")
    enqueue(1, replace(DEFAULT, queue_name="push"))
    assert unheard(100) == []


@pytest.mark.postgres
def test_the_quiet_are_found_by_the_index_of_those_that_wait() -> None:
    [plan] = [plan for plan in plans(lambda: unheard(0), deferred=3000) if plan.startswith("Limit")]
    assert "i3tasks_try_waiting_idx" in plan, plan
    assert "Seq Scan" not in plan, plan

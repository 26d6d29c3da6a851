"""How a try ends: each outcome's exact columns, at most once, by the holder of its token only."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.outcome import ErrorRecord, Outcome, Released, Success
from i3tasks.models import TaskExecution, TaskExecutionResult, TaskExecutionTry
from i3tasks.store.requests import LOCKED, STALE, Claimed, Settled, Settlement
from i3tasks.store.settle import settle
from tests.store.helpers import ERROR, at, columns, enqueue, failure, lease, open_transaction, queries_of, row, says

pytestmark = pytest.mark.django_db

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
STATE = ("is_completed", "is_success", "finished_at", "lease_until", "dispatch_at", "error_class", "error_traceback")


def settled(claimed: Claimed, outcome: Outcome, **options: Any) -> Any:
    [answer] = settle([says(claimed, outcome)], **options)
    return answer


def one() -> Claimed:
    return lease(*enqueue())[0]


def state(claimed: Claimed) -> dict[str, Any]:
    task_try = row(claimed.try_id)
    return {name: getattr(task_try, name) for name in STATE}


def everything() -> list[Any]:
    """Every column of every row."""
    models = (TaskExecution, TaskExecutionTry, TaskExecutionResult)
    return [list(model.objects.order_by("pk").values()) for model in models]


DONE = {"is_completed": True, "finished_at": NOON, "lease_until": None, "dispatch_at": None}


def test_success() -> None:
    claimed = one()
    assert settled(claimed, Success({"a": [1, None]}), now=at(NOON)) == Settled()
    assert state(claimed) == {**DONE, "is_success": True, "error_class": None, "error_traceback": None}
    execution = row(claimed.try_id).task_execution
    assert (execution.outcome, execution.finished_at) == ("success", NOON)
    assert row(claimed.try_id).result.result == {"a": [1, None]}
    assert row(claimed.try_id).started_at == claimed.started_at


def test_a_final_failure() -> None:
    claimed = one()
    assert settled(claimed, failure(), now=at(NOON)) == Settled()
    assert state(claimed) == {
        **DONE, "is_success": False, "error_class": "shop.CardDeclined", "error_traceback": "Traceback: no money",
    }  # fmt: skip
    execution = row(claimed.try_id).task_execution
    assert (execution.outcome, execution.finished_at) == ("failed", NOON)
    assert row(claimed.try_id).result.result == "no money"
    assert TaskExecutionTry.objects.count() == 1


def test_a_failure_with_retries_left_writes_the_next_try() -> None:
    claimed = one()
    assert settled(claimed, failure(delay=90), now=at(NOON)) == Settled(), "not due yet, so nothing to publish"
    assert state(claimed)["is_completed"]
    execution = row(claimed.try_id).task_execution
    assert (execution.outcome, execution.finished_at) == (None, None)
    again = TaskExecutionTry.objects.get(try_number=2)
    assert again.run_after == again.dispatch_at == NOON + timedelta(seconds=90)
    assert (again.claim_token, again.started_at, again.publish_count) == (None, None, 0)


def test_a_retry_without_delay_is_due_now_and_safe_for_the_grace() -> None:
    claimed = one()
    answer = settled(claimed, failure(delay=0), now=at(NOON))
    again = TaskExecutionTry.objects.get(try_number=2)
    assert (again.run_after, again.dispatch_at) == (None, NOON + timedelta(seconds=60))
    [due] = answer.due
    assert (due.try_id, due.execution_id, due.dispatch_at) == (again.pk, claimed.execution_id, again.dispatch_at)


@pytest.mark.parametrize("minutes", [0, 5])
def test_a_released_try_is_as_if_it_had_never_been_claimed(minutes: int) -> None:
    claimed = one()
    TaskExecutionTry.objects.update(publish_count=3)
    settled(claimed, Released(timedelta(minutes=minutes)), now=at(NOON))
    task_try = row(claimed.try_id)
    assert task_try.publish_count == 0, "its message is acked, so it is not one of those that wait in Pub/Sub"
    for column in ("started_at", "lease_until", "claim_token", "worker_id", "finished_at", "run_after"):
        assert getattr(task_try, column) is None, column
    assert task_try.dispatch_at == NOON + timedelta(minutes=minutes)
    assert (task_try.is_completed, task_try.task_execution.outcome) == (False, None)
    assert not TaskExecutionResult.objects.exists()
    lease(task_try)


VALUES: list[Any] = [None, 0, "", False, [], {}, "text", 1.5, [{"a": None}], "[1]"]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_result_is_stored_as_the_value_and_not_as_its_json_text(value: Any) -> None:
    claimed = one()
    settled(claimed, Success(value))
    back = TaskExecutionResult.objects.get(task_execution_try=claimed.try_id).result
    assert (type(back), back) == (type(value), value)


@pytest.mark.parametrize(
    "outcome", [Success(1), failure(), failure(delay=1), Released()], ids=lambda o: type(o).__name__
)
def test_a_stale_token_changes_nothing(outcome: Outcome) -> None:
    claimed = one()
    before = everything()
    stale = Settlement(claimed.try_id, claimed.execution_id, SYSTEM_CLOCK.new_uuid7(), outcome)
    assert settle([stale]) == [STALE]
    assert everything() == before
    settled(claimed, Success("mine"))
    before = everything()
    assert settle([stale]) == [STALE]
    assert everything() == before


@pytest.mark.parametrize("outcome", [Success(1), failure(), failure(delay=1)], ids=["success", "failure", "retry"])
def test_the_same_settlement_again_is_recorded_once_and_is_no_stale_one(outcome: Outcome) -> None:
    """COMMIT's reply was lost, and the writer asks once more."""
    claimed = one()
    settled(claimed, outcome)
    before = everything()
    assert settled(claimed, outcome) == Settled()
    assert settled(claimed, Success("something else")) == Settled()
    assert everything() == before


def test_the_same_settlement_twice_in_a_batch_counts_once() -> None:
    claimed = one()
    answers = settle([says(claimed, failure(delay=0)), says(claimed, failure(delay=0))])
    assert all(isinstance(answer, Settled) for answer in answers)
    assert TaskExecutionTry.objects.count() == 2


@pytest.mark.parametrize("order", [1, -1])
def test_a_stale_settlement_beside_the_real_one_neither_wins_nor_harms(order: int) -> None:
    [task_try] = enqueue()
    [before] = lease(task_try)
    settled(before, Released())
    [holder] = lease(task_try)
    batch = [says(before, Success("stale")), says(holder, Success("real"))][::order]
    assert settle(batch)[::order] == [STALE, Settled()]
    assert TaskExecutionResult.objects.get().result == "real"


def test_a_row_that_is_gone_is_stale() -> None:
    claimed = one()
    TaskExecution.objects.all().delete()
    assert settled(claimed, Success(1)) is STALE


def test_a_cancelled_execution_gets_no_retry() -> None:
    claimed = one()
    TaskExecution.objects.update(cancel_requested_at=timezone.now())
    assert settled(claimed, failure(delay=0)) == Settled()
    assert row(claimed.try_id).task_execution.outcome == "cancelled"
    assert TaskExecutionTry.objects.count() == 1


def test_a_cancelled_execution_that_succeeds_has_succeeded() -> None:
    claimed = one()
    TaskExecution.objects.update(cancel_requested_at=timezone.now())
    settled(claimed, Success(1))
    assert row(claimed.try_id).task_execution.outcome == "success"


def test_a_batch_of_mixed_outcomes() -> None:
    other_error = ErrorRecord("shop.Other", "other", "Traceback: other")
    claimed = lease(*enqueue(6))
    outcomes = [Success(1), failure(), failure(error=other_error), failure(delay=0), Released(), Success(2)]
    answers = settle([says(*pair) for pair in zip(claimed, outcomes, strict=True)], now=at(NOON))
    assert [len(answer.due) for answer in answers if isinstance(answer, Settled)] == [0, 0, 0, 1, 0, 0]
    first = columns("is_completed", "is_success", "error_class")[:6]
    assert [tuple(item.values()) for item in first] == [
        (True, True, None),
        (True, False, ERROR.error_class),
        (True, False, "shop.Other"),
        (True, False, ERROR.error_class),
        (False, False, None),
        (True, True, None),
    ]
    outcomes_kept = TaskExecution.objects.order_by("pk").values_list("outcome", flat=True)
    assert list(outcomes_kept) == ["success", "failed", "failed", None, None, "success"]
    results = TaskExecutionResult.objects.order_by("task_execution_try").values_list("result", flat=True)
    assert list(results) == [1, "no money", "other", "no money", 2]


@pytest.mark.parametrize(
    "outcome", [Success(1), failure(), failure(delay=9), Released()], ids=["ok", "failed", "retry", "back"]
)
def test_the_number_of_statements_does_not_grow_with_the_batch(outcome: Outcome) -> None:
    one_batch, many = lease(*enqueue(1)), lease(*enqueue(40))
    assert queries_of(lambda: settle([says(item, outcome) for item in one_batch])) == queries_of(
        lambda: settle([says(item, outcome) for item in many])
    )


def test_stale_ones_cost_no_statement_each() -> None:
    claimed = lease(*enqueue(20))
    TaskExecution.objects.all().delete()
    assert queries_of(lambda: settle([says(item, Success(1)) for item in claimed])) <= 3


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("table", ["i3tasks_taskexecutiontry", "i3tasks_taskexecution"])
def test_a_locked_row_is_locked_and_its_neighbours_are_settled(table: str) -> None:
    held, free = lease(*enqueue(2))
    pk = held.try_id if table.endswith("try") else held.execution_id
    with open_transaction(f"SELECT 1 FROM {table} WHERE id = {pk} FOR UPDATE"):
        answers = settle([says(held, Success(1)), says(free, Success(2))])
        assert answers == [LOCKED, Settled()]
        assert settle([Settlement(held.try_id, held.execution_id, SYSTEM_CLOCK.new_uuid7(), Success(1))]) == [STALE]
    assert not row(held.try_id).is_completed
    assert settled(held, Success(1)) == Settled()


# ----------------------------------------------------- a worker of django-i3tasks had the same try at the same time


def test_an_old_workers_result_is_replaced_and_breaks_nothing() -> None:
    claimed = one()
    TaskExecutionResult.objects.create(task_execution_try_id=claimed.try_id, result="old")
    assert settled(claimed, Success("new")) == Settled()
    assert TaskExecutionResult.objects.get().result == "new"


def test_an_old_workers_next_try_is_not_written_twice() -> None:
    claimed = one()
    TaskExecutionTry.objects.create(task_execution_id=claimed.execution_id, try_number=2)
    assert settled(claimed, failure(delay=0)) == Settled()
    assert [item["try_number"] for item in columns("try_number")] == [1, 2]
    assert row(claimed.try_id).is_completed


def test_a_released_try_of_a_cancelled_execution_ends_since_no_worker_would_claim_it_again() -> None:
    claimed = one()
    TaskExecution.objects.update(cancel_requested_at=NOON)
    assert settled(claimed, Released(), now=at(NOON)) == Settled()
    task_try = row(claimed.try_id)
    assert (task_try.is_completed, task_try.dispatch_at) == (True, None)
    assert (task_try.task_execution.outcome, task_try.task_execution.finished_at) == ("cancelled", NOON)

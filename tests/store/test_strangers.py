"""A stranger's open transaction holds a row of ours: everything else goes on, and what needs the row comes back for it.

Each table, each strength of lock. Nothing here waits for the stranger: `lock_timeout` would make that an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from i3tasks import RESULT, chain, group
from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.outcome import Success
from i3tasks.models import TaskExecution, TaskExecutionTry, TaskGroup
from i3tasks.store.audit import audit
from i3tasks.store.cancel import cancel
from i3tasks.store.claims import claim
from i3tasks.store.dispatching import confirm_published, deny_published, take_due
from i3tasks.store.expiry import expire_leases
from i3tasks.store.groups import expire_groups
from i3tasks.store.leases import renew
from i3tasks.store.requests import LOCKED, Claimed, Refusal, Settled, TryRef
from i3tasks.store.settle import settle
from tests.shop.flows import note
from tests.store.helpers import enqueue, failure, lease, open_transaction, request, row, says
from tests.store.test_claims import Heartbeat

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("sent", "impatient"),
]

STRENGTHS = ["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"]


@pytest.fixture
def impatient() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '1s'")
        yield
        cursor.execute("RESET lock_timeout")


@dataclass
class Member:
    """A running member of a group in a chain, or a step whose next one is the member."""

    claimed: Claimed
    group: TaskGroup

    def held(self, table: str, strength: str) -> AbstractContextManager[None]:
        pk = {
            "i3tasks_taskexecutiontry": self.claimed.try_id,
            "i3tasks_taskexecution": self.claimed.execution_id,
            "i3tasks_taskgroup": self.group.pk,
        }[table]
        return open_transaction(f"SELECT 1 FROM {table} WHERE id = {pk} FOR {strength}")


def a_running_member(*, in_steps: bool = False, lease_seconds: float = 7200) -> Member:
    member: Any = chain(note.s("first"), note.s("member")) if in_steps else note.s("member")
    started = group(member, deadline=timedelta(hours=1)).then(note.s(RESULT)).delay()
    [task_try] = TaskExecutionTry.objects.filter(is_completed=False, started_at=None).select_related("task_execution")
    [claimed] = lease(task_try, lease_seconds=lease_seconds)
    return Member(claimed, started)


def others_go_on() -> None:
    """Claims, heartbeats, settlements, publishes and the dispatcher's turns of all others."""
    waiting, published, refused, *running = enqueue(6)
    [answer] = claim([request(waiting)])
    assert isinstance(answer, Claimed)
    done, failed, lost = lease(*running)
    [renewed] = renew([Heartbeat(done, failed, lost)])
    assert not renewed.lost  # type: ignore[union-attr]
    answers = settle([says(done, Success(1)), says(failed, failure())])
    assert all(isinstance(item, Settled) for item in answers)
    confirm_published([TryRef.of(published)])
    deny_published([TryRef.of(refused)])
    assert row(published).publish_count == 1
    later = timezone.now() + timedelta(seconds=40)
    expire_leases(10, clock=SYSTEM_CLOCK, now=later)
    assert row(lost.try_id).error_class == "i3tasks.exceptions.WorkerLost"
    expire_groups(10, now=later)
    assert refused.pk in {ref.try_id for ref in take_due(100, now=later)}
    cancel([refused.task_execution_id])


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("table", ["i3tasks_taskexecutiontry", "i3tasks_taskexecution", "i3tasks_taskgroup"])
@pytest.mark.parametrize("in_steps", [False, True], ids=["member", "step before the member"])
def test_a_settlement_leaves_the_held_row_and_takes_all_others(table: str, strength: str, in_steps: bool) -> None:
    member = a_running_member(in_steps=in_steps)
    with member.held(table, strength):
        [other] = lease(*enqueue())
        answers = settle([says(member.claimed, Success(1)), says(other, Success(2))])
        assert isinstance(answers[1], Settled)
        assert answers[0] is LOCKED or isinstance(answers[0], Settled)
        others_go_on()
    if answers[0] is LOCKED:
        [again] = settle([says(member.claimed, Success(1))])
        assert isinstance(again, Settled)
    assert row(member.claimed.try_id).is_success
    member.group.refresh_from_db()
    assert member.group.completed_count == (0 if in_steps else 1)
    assert TaskExecution.objects.filter(previous=member.claimed.execution_id).count() == int(in_steps)
    assert audit(overdue=timedelta(hours=3)) == []


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("table", ["i3tasks_taskexecutiontry", "i3tasks_taskexecution", "i3tasks_taskgroup"])
def test_a_lost_member_is_expired_after_the_stranger_and_all_others_at_once(table: str, strength: str) -> None:
    member = a_running_member(lease_seconds=30)
    TaskExecutionTry.objects.filter(pk=member.claimed.try_id).update(try_number=100)
    [other] = lease(*enqueue())
    with member.held(table, strength):
        expire_leases(10, clock=SYSTEM_CLOCK, now=timezone.now() + timedelta(seconds=40))
        assert row(other.try_id).is_completed
        others_go_on()
    expire_leases(10, clock=SYSTEM_CLOCK, now=timezone.now() + timedelta(seconds=40))
    assert row(member.claimed.try_id).is_completed
    member.group.refresh_from_db()
    assert member.group.status == TaskGroup.STATUS_FAILED


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_group_past_its_deadline_is_failed_after_the_stranger_and_the_others_at_once(strength: str) -> None:
    held, free = (group(note.s(name), deadline=60).then(note.s(RESULT)).delay() for name in ("held", "free"))
    late = timezone.now() + timedelta(hours=1)
    with open_transaction(f"SELECT 1 FROM i3tasks_taskgroup WHERE id = {held.pk} FOR {strength}"):
        expire_groups(10, now=late)
        free.refresh_from_db()
        assert free.status == TaskGroup.STATUS_FAILED
    expire_groups(10, now=late)
    held.refresh_from_db()
    assert held.status == TaskGroup.STATUS_FAILED


def test_a_nested_group_waits_for_the_outer_one_that_fails_with_it() -> None:
    inner = chain(group(note.s("member")), note.s("after"))
    outer = group(inner).then(note.s(RESULT)).delay()
    [task_try] = TaskExecutionTry.objects.select_related("task_execution")
    [claimed] = lease(task_try, lease_seconds=7200)
    with open_transaction(f"SELECT 1 FROM i3tasks_taskgroup WHERE id = {outer.pk} FOR UPDATE"):
        assert settle([says(claimed, failure())]) == [LOCKED]
        others_go_on()
    [settled] = settle([says(claimed, failure())])
    assert isinstance(settled, Settled)
    assert set(TaskGroup.objects.values_list("status", flat=True)) == {TaskGroup.STATUS_FAILED}


@pytest.mark.parametrize("then", ["COMMIT", "ROLLBACK"])
def test_a_cancellation_that_stays_open_costs_no_live_lease(then: str) -> None:
    """It marks the execution only: the heartbeat of the running try gets through."""
    [claimed] = lease(*enqueue())
    other = connection.copy()
    heartbeat = Heartbeat(claimed)
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(
                "UPDATE i3tasks_taskexecution SET cancel_requested_at = now() WHERE id = %s", [claimed.execution_id]
            )
            late = timezone.now() + timedelta(seconds=25)
            renew([heartbeat], now=late)
            assert expire_leases(10, clock=SYSTEM_CLOCK, now=late + timedelta(seconds=10)) == []
            assert settle([says(claimed, Success(1))]) == [LOCKED]
            cursor.execute(then)
    finally:
        other.close()
    [renewed] = renew([heartbeat])
    assert (claimed.try_id in renewed.cancelled) is (then == "COMMIT")  # type: ignore[union-attr]
    [settled] = settle([says(claimed, Success(1))])
    assert isinstance(settled, Settled)


def test_cancelling_locks_no_try_that_runs() -> None:
    [claimed] = lease(*enqueue())
    with open_transaction(f"SELECT 1 FROM i3tasks_taskexecutiontry WHERE id = {claimed.try_id} FOR UPDATE"):
        cancel([claimed.execution_id])
    [renewed] = renew([Heartbeat(claimed)])
    assert renewed.cancelled == {claimed.try_id}  # type: ignore[union-attr]


def test_a_claim_of_a_held_try_is_locked_and_never_lost() -> None:
    held, free = enqueue(2)
    for strength in STRENGTHS:
        with open_transaction(f"SELECT 1 FROM i3tasks_taskexecutiontry WHERE id = {held.pk} FOR {strength}"):
            answers = claim([request(held), request(free)])
            if answers[0] is not LOCKED:
                break  # it does not conflict
    assert isinstance(answers[0], Claimed)
    assert isinstance(answers[1], Claimed) or answers[1] is Refusal.LEASED

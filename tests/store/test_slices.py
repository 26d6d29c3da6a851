"""A step that opens a large group writes a part of it; the other members follow slice by slice, each of them once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from i3tasks import RESULT, chain, group
from i3tasks.core.outcome import Success
from i3tasks.engine.dispatcher import Dispatcher
from i3tasks.models import GroupSlice, TaskExecution, TaskExecutionTry, TaskGroup
from i3tasks.store import workflows
from i3tasks.store.ages import Ages
from i3tasks.store.audit import audit
from i3tasks.store.database import atomic
from i3tasks.store.groups import stalled_groups
from i3tasks.store.requests import Settled
from i3tasks.store.retention import clean
from i3tasks.store.settle import settle
from i3tasks.store.slices import open_slice
from tests.shop.flows import note, total
from tests.store.helpers import failure, in_threads, lease, open_transaction, says

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

AT_ONCE = 6


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflows, "WRITTEN_AT_ONCE", AT_ONCE)


def calls(name: str) -> list[Any]:
    """The arguments behind the first one, of the calls whose first argument begins so."""
    found = TaskExecution.objects.order_by("pk").values_list("task_args", flat=True)
    return [args for args in found if args and str(args[0]).startswith(name)]


def waiting() -> list[TaskExecutionTry]:
    return list(TaskExecutionTry.objects.filter(is_completed=False, claim_token=None).select_related("task_execution"))


def work(outcome: Callable[[Any], Any] = lambda claimed: Success(claimed.args[0])) -> None:
    """Run all that waits."""
    for claimed in lease(*waiting()):
        [answer] = settle([says(claimed, outcome(claimed))])
        assert isinstance(answer, Settled)


def opened(*members: Any, then: Any = None, **options: Any) -> Any:
    """A chain that has just come to a group of these members."""
    made = group(*members, **options)
    before = waiting()
    handle = chain(note.s("first"), made if then is None else made.then(then)).delay()
    [claimed] = lease(handle.task_execution_try)
    [answer] = settle([says(claimed, Success("of first"))])
    assert isinstance(answer, Settled)
    assert {ref.try_id for ref in answer.due} == {task_try.pk for task_try in waiting()} - {
        task_try.pk for task_try in before
    }
    return handle


def written(minimum: int = 1) -> int:
    """How many calls the next slice has."""
    before = TaskExecution.objects.count()
    tries = open_slice()
    assert tries is not None
    assert len(tries) == TaskExecution.objects.count() - before
    return len(tries)


def test_members_are_written_slice_by_slice_and_counted_from_the_beginning() -> None:
    opened((note.s(f"n{n:02}", RESULT) for n in range(20)), then=total.s(RESULT))
    members = TaskGroup.objects.get()
    assert members.total_count == 20
    assert len(calls("n")) == AT_ONCE
    work()
    members.refresh_from_db()
    assert (members.status, members.completed_count) == ("pending", AT_ONCE)
    assert audit() == []
    assert not stalled_groups(timezone.now() + timedelta(days=1)), "its members are still to come"
    assert [written(), written(), written()] == [6, 6, 2]
    assert open_slice() is None
    assert calls("n") == [[f"n{n:02}", "of first"] for n in range(20)]
    work()
    members.refresh_from_db()
    assert (members.status, members.completed_count) == ("success", 20)
    [callback] = waiting()
    assert callback.task_execution.task_args == [[f"n{n:02}" for n in range(20)]]
    assert audit() == []


def test_one_batch_of_settlements_writes_no_more_than_one_of_them() -> None:
    for number in range(8):
        chain(note.s("first"), group(note.s(f"n{number}-{member}") for member in range(5)), note.s("after")).delay()
    leases = lease(*waiting())
    before = TaskExecution.objects.count()
    assert all(isinstance(answer, Settled) for answer in settle([says(claimed, Success(1)) for claimed in leases]))
    assert TaskExecution.objects.count() - before == AT_ONCE
    while open_slice() is not None:
        pass
    assert len(calls("n")) == 40
    work()
    assert len(waiting()) == 8
    assert audit() == []


def test_groups_in_groups_are_written_in_slices_too() -> None:
    inner = [group(note.s(f"n{n}-{m}", RESULT) for m in range(9)).then(note.s(f"inner{n}")) for n in range(4)]
    opened(*inner, (note.s(f"n9-{m}", RESULT) for m in range(4)), then=note.s("all"))
    sizes = [TaskExecution.objects.count() - 1]
    while (tries := open_slice()) is not None:
        sizes.append(len(tries))
    assert max(sizes) <= AT_ONCE
    assert sum(sizes) == 40
    assert calls("n") == sorted(calls("n"), key=calls("n").index)
    assert {tuple(args) for args in calls("n")} == {(f"n{n}-{m}", "of first") for n in range(4) for m in range(9)} | {
        (f"n9-{m}", "of first") for m in range(4)
    }
    work()
    work()
    assert TaskGroup.objects.filter(status="success").count() == 5
    assert len(calls("all")) == 1
    assert audit() == []


def test_a_crash_while_a_slice_is_written_loses_none_and_doubles_none() -> None:
    opened(note.s(f"n{n}") for n in range(20))

    class Killed(BaseException): ...

    def die() -> None:
        with atomic():
            assert open_slice()
            raise Killed

    with pytest.raises(Killed):
        die()
    assert len(calls("n")) == AT_ONCE
    while open_slice() is not None:
        pass
    assert sorted(calls("n")) == sorted([f"n{n}"] for n in range(20))


def test_many_dispatchers_write_each_member_once() -> None:
    handles = [opened(note.s(f"n{number}-{n}") for n in range(40)) for number in range(2)]

    def open_all() -> int:
        count = 0
        while GroupSlice.objects.exists():
            count += len(open_slice() or ())
        return count

    assert sum(in_threads([open_all] * 4)) == len(handles) * (40 - AT_ONCE)
    assert len(calls("n")) == 80
    assert len({args[0] for args in calls("n")}) == 80
    work()
    assert audit() == []


@pytest.mark.parametrize("wait_for_all", [False, True])
def test_a_failure_counts_before_the_other_members_are_written(wait_for_all: bool) -> None:
    opened((note.s(f"n{n}") for n in range(10)), then=note.s("all"), wait_for_all=wait_for_all)
    work(lambda claimed: failure())
    assert TaskGroup.objects.get().status == ("pending" if wait_for_all else "failed")
    while open_slice() is not None:
        pass
    assert len(calls("n")) == 10, "a group's failure cancels none of its members, written or not"
    work()
    members = TaskGroup.objects.get()
    assert members.status == "failed"
    assert (members.completed_count, members.failed_count) == ((4, 6) if wait_for_all else (0, 1))
    assert audit() == []


@pytest.mark.parametrize("by", ["chain", "group"])
def test_cancelling_reaches_members_that_are_not_written_yet(by: str) -> None:
    inner = group(note.s(f"n3-{m}") for m in range(7)).then(note.s("after"))
    handle = opened((note.s(f"n{n}") for n in range(10)), inner, then=note.s("all"))
    handle.cancel() if by == "chain" else TaskGroup.objects.get(total_count=11).cancel()
    assert not GroupSlice.objects.exists()
    assert not waiting()
    assert TaskExecution.objects.filter(outcome="cancelled").count() == 17
    assert set(TaskGroup.objects.values_list("status", flat=True)) == {"failed"}
    assert audit() == []


def test_cancelling_while_slices_are_written() -> None:
    for number in range(4):
        handle = opened((note.s(f"n{number}-{n}") for n in range(60)), then=note.s("all"))
        started = threading.Event()

        def open_all(started: threading.Event = started) -> None:
            while GroupSlice.objects.exists():
                open_slice()
                started.set()

        def cancel(started: threading.Event = started, handle: Any = handle) -> None:
            assert started.wait(20)
            handle.cancel()

        in_threads([open_all, cancel])
        assert not waiting()
    assert not GroupSlice.objects.exists()
    assert TaskExecution.objects.exclude(outcome="cancelled").count() == 4, "the first steps"
    assert len(calls("n")) == 4 * 60
    assert audit() == []


@pytest.mark.postgres
@pytest.mark.parametrize("strength", ["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"])
@pytest.mark.parametrize("table", ["i3tasks_taskgroup", "i3tasks_groupslice"])
def test_a_held_group_or_slice_holds_up_no_other(table: str, strength: str) -> None:
    opened(note.s(f"held{n}") for n in range(40))
    held = TaskGroup.objects.get().pk
    for name in ("some", "other"):
        opened(note.s(f"{name}{n}") for n in range(20))
    column = "id" if table.endswith("group") else "task_group_id"
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '1s'")
    with open_transaction(f"SELECT 1 FROM {table} WHERE {column} = {held} FOR {strength}"):
        while open_slice() is not None:
            pass
        assert len(calls("some")) == len(calls("other")) == 20
    while open_slice() is not None:
        pass
    assert len(calls("held")) == 40


@pytest.mark.postgres
def test_a_member_that_the_database_refuses_is_counted_as_failed_and_the_others_are_written(events: list[str]) -> None:
    opened((note.s(f"n{n}") for n in range(30)), then=note.s("all"), wait_for_all=True)
    of_members = GroupSlice.objects.get(first_index=12)
    of_members.members[2][0]["func_name"] = "x" * 300  # the column takes 256
    of_members.save()
    while GroupSlice.objects.exists():
        assert open_slice() is not None
    assert events.count("internal_error") == 1
    assert sorted(calls("n")) == sorted([f"n{n}"] for n in range(30) if n != 14)
    assert TaskGroup.objects.get().failed_count == 1
    work()
    members = TaskGroup.objects.get()
    assert (members.status, members.completed_count, members.failed_count) == ("failed", 29, 1)
    assert audit() == []


def test_a_member_that_is_no_list_of_steps_fails_the_step_that_leads_to_it() -> None:
    chain(note.s("first"), group(note.s(f"n{n}") for n in range(20))).delay()
    first = TaskExecution.objects.get()
    first.chain[0]["group"]["members"][15] = "nonsense"
    first.save()
    [claimed] = lease(*waiting())
    with pytest.raises(AttributeError):
        settle([says(claimed, Success(1))])
    [answer] = settle([says(claimed, failure())])
    assert isinstance(answer, Settled)
    assert not GroupSlice.objects.exists()


def test_retention_keeps_a_group_whose_members_are_still_to_be_written() -> None:
    opened(note.s(f"n{n}") for n in range(20))
    work(lambda claimed: failure())
    assert TaskGroup.objects.get().status == "failed"
    later = timezone.now() + timedelta(days=1)
    clean(Ages(failed=timedelta(), other=timedelta()), now=later)
    assert len(calls("first")) == 1, "the group follows it, and could be cancelled through it"
    while open_slice() is not None:
        pass
    assert len(calls("n")) == 14
    work()
    clean(Ages(failed=timedelta(), other=timedelta()), now=later)
    assert not TaskExecution.objects.exists()
    assert not TaskGroup.objects.exists()


def test_the_dispatcher_writes_a_slice_a_pass_and_publishes_its_members(sent: Any) -> None:
    opened(note.s(f"n{n}") for n in range(20))
    before = len(sent.messages)
    dispatcher = Dispatcher()
    assert 0 < dispatcher.pass_once() < 0.5
    assert len(sent.messages) - before == AT_ONCE
    dispatcher.pass_while_busy()
    assert len(sent.messages) - before == 14
    assert not GroupSlice.objects.exists()


def test_members_that_no_dispatcher_writes_are_found_by_the_audit() -> None:
    opened(note.s(f"n{n}") for n in range(20))
    GroupSlice.objects.update(created_at=timezone.now() - timedelta(hours=1))
    assert [finding.rule for finding in audit()] == ["group whose members are not written for long"]

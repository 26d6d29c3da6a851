"""Acting on all that a filter finds: who is meant, who is skipped and why, in slices that stay done."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from i3tasks import chain
from i3tasks.core.outcome import Success
from i3tasks.engine.bulk import Progress, act_on_all
from i3tasks.models import TaskExecution, TaskExecutionTry, TaskGroup, TaskKey
from i3tasks.store import bulk
from i3tasks.store.bulk import FOLLOWED, Act, slices
from i3tasks.store.search import Search
from i3tasks.store.settle import settle
from i3tasks.store.states import State, state_of, telling_try
from tests.shop.flows import note
from tests.store.helpers import ADD, enqueue, failure, lease, open_transaction, says
from tests.store.helpers import row as read
from tests.support.history import a_try, ago, execution, finished
from tests.support.rigs import NotingPublisher

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("sent")]


def act(wanted: Act, until: datetime | None = None, size: int = 200, **fields: Any) -> Progress:
    search = Search.parse(fields, timezone.now())
    *_, last = [Progress(), *act_on_all(search, wanted, by="test", until=until, size=size)]
    return last


def state(row: TaskExecution | TaskExecutionTry) -> str | None:
    pk = row.task_execution_id if isinstance(row, TaskExecutionTry) else row.pk
    fresh = TaskExecution.objects.prefetch_related(telling_try()).get(pk=pk)
    return state_of(fresh, fresh.latest[0] if fresh.latest else None, timezone.now())


def test_retry_gives_all_that_failed_or_were_cancelled_one_more_try() -> None:
    rows = [finished(outcome, ago(minutes=5)) for outcome in ("failed", "cancelled", "success", "failed")]

    with_all = act(Act.RETRY, size=2)

    assert (with_all.done, with_all.skipped) == (3, Counter())
    assert [state(row) for row in rows] == ["retrying", "retrying", "succeeded", "retrying"]
    assert act(Act.RETRY).done == 0, "done is done"


def test_only_what_the_filter_finds_is_meant() -> None:
    tries = enqueue(4) + enqueue(2, replace(ADD, queue_name="mail"))

    assert act(Act.CANCEL, queue="mail").done == 2
    assert [state(task_try) for task_try in tries] == [*["waiting"] * 4, *["cancelled"] * 2]


def test_named_executions_that_an_act_does_not_fit_are_skipped_with_the_reason() -> None:
    done = finished("success", ago())
    waiting, running = enqueue(2)
    lease(running)
    ids = f"{done.pk},{waiting.task_execution_id},{running.task_execution_id}"

    assert act(Act.RETRY, id=ids).skipped == {"it has not failed": 3}
    assert act(Act.RUN_NOW, id=ids).skipped == {"it is not put off": 3}
    assert act(Act.PUT_OFF, until=ago(hours=1), id=ids).skipped == {
        "it does not wait": 2,
        "it is due later than that": 1,
    }
    assert act(Act.DISCARD, id=str(running.task_execution_id)).skipped == {bulk.RUNNING: 1}
    first = act(Act.CANCEL, id=ids)
    assert (first.done, first.skipped) == (2, {"it has ended already": 1})
    assert act(Act.CANCEL, id=ids).skipped == {"it has ended already": 2, bulk.TOLD: 1}


def test_put_off_until_an_instant_and_run_now() -> None:
    until = timezone.now() + timedelta(hours=2)
    waiting, retrying, later = enqueue(3)
    (claimed,) = lease(retrying)
    settle([says(claimed, failure(delay=60))])
    TaskExecutionTry.objects.filter(pk=later.pk).update(
        run_after=until + timedelta(days=1), dispatch_at=until + timedelta(days=1)
    )

    moved = act(Act.PUT_OFF, until=until)

    assert (moved.done, moved.skipped) == (2, {"it is due later than that": 1})
    second = TaskExecutionTry.objects.get(try_number=2)
    for one in (read(waiting), second):
        assert (one.run_after, one.dispatch_at, one.publish_count) == (until, until, 0)
    assert act(Act.PUT_OFF, until=until).done == 0, "a second time moves nothing"

    assert act(Act.RUN_NOW).done == 3
    for one in TaskExecutionTry.objects.filter(is_completed=False):
        assert one.run_after is None
        assert one.dispatch_at is not None
        assert one.dispatch_at < until
    assert state(waiting) == "waiting"


def test_run_now_and_retry_publish_at_once(sent: NotingPublisher, django_capture_on_commit_callbacks: Any) -> None:
    later = timezone.now() + timedelta(hours=2)
    (deferred,) = enqueue(1, replace(ADD, run_after=later))
    failed = finished("failed", ago())

    with django_capture_on_commit_callbacks(execute=True):
        act(Act.RUN_NOW, state="deferred")
        act(Act.RETRY, state="failed")

    assert sent.try_ids == [deferred.pk, failed.tries.get(try_number=2).pk]


def test_discard_deletes_with_tries_and_results_and_keeps_what_others_need() -> None:
    group = TaskGroup.objects.create(total_count=2, callback_task_path="", callback_task_name="")
    gone = [finished("success", ago()), enqueue()[0].task_execution]
    member = finished("success", ago(), task_group=group)
    inner = execution(chain=[{"module_name": "m", "func_name": "f", "task_group_id": group.pk}])
    a_try("pending", of=inner)
    first = finished("success", ago())
    a_try("pending", of=execution(previous=first), dispatch_at=ago())
    keyed = finished("success", ago())
    TaskKey.objects.create(
        key="k", token=keyed.uuid, task_execution=keyed, expires_at=timezone.now() + timedelta(days=1)
    )
    kept = [member, inner, first, keyed]
    ids = ",".join(str(row.pk) for row in [*gone, *kept])

    cleared = act(Act.DISCARD, id=ids)

    assert cleared.done == 2
    assert cleared.skipped == {bulk.AWAITED: 2, bulk.FOLLOWED: 1, bulk.KEYED: 1}
    assert not TaskExecution.objects.filter(pk__in=[row.pk for row in gone]).exists()
    assert not TaskExecutionTry.objects.filter(task_execution__in=[row.pk for row in gone]).exists()
    assert TaskExecution.objects.filter(pk__in=[row.pk for row in kept]).count() == 4


@pytest.mark.parametrize("ended", [1, 2, 3])
def test_discard_keeps_all_that_an_unfinished_step_came_from(ended: int) -> None:
    """Over any number of links: without the first step, cancelling the chain would end nothing, in silence."""
    handle = chain(*(note.s(name) for name in "abcd")).delay()
    for _ in range(ended):
        [waiting] = TaskExecutionTry.objects.filter(is_completed=False).select_related("task_execution")
        settle([says(lease(waiting)[0], Success(1))])
    [made] = slices(Search(states=(State.SUCCEEDED,)), Act.DISCARD, now=timezone.now())
    assert (made.done, made.skipped) == ([], {FOLLOWED: ended})
    handle.cancel()
    assert TaskExecution.objects.latest("pk").outcome == "cancelled"


def test_an_interrupted_run_stays_done_and_goes_on_from_its_place() -> None:
    rows = [finished("failed", ago(minutes=minute)) for minute in range(6)]
    search = Search.parse({"state": "failed"}, timezone.now())

    run = act_on_all(search, Act.DISCARD, size=2)
    first = next(run)
    run.close()

    assert (first.done, TaskExecution.objects.count()) == (2, 4)
    *_, rest = act_on_all(search, Act.DISCARD, size=2, after=first.place)
    assert rest.done == 4
    assert not TaskExecution.objects.filter(pk__in=[row.pk for row in rows]).exists()


def test_who_did_what_is_an_event(caplog: pytest.LogCaptureFixture) -> None:
    finished("failed", ago())
    with caplog.at_level("INFO", "i3tasks"):
        act(Act.RETRY, state="failed")

    (record,) = [record for record in caplog.records if "executions_acted_on" in record.getMessage()]
    said = record.getMessage()
    for word in ("act='retry'", "filter='state=failed'", "by='test'", "done=1"):
        assert word in said


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("wanted", "table"),
    [
        (Act.RETRY, "taskexecution"),
        (Act.CANCEL, "taskexecution"),
        (Act.CANCEL, "taskexecutiontry"),
        (Act.RUN_NOW, "taskexecutiontry"),
        (Act.PUT_OFF, "taskexecutiontry"),
        (Act.DISCARD, "taskexecution"),
        (Act.DISCARD, "taskexecutiontry"),
    ],
)
def test_what_another_transaction_holds_is_skipped_at_once(wanted: Act, table: str) -> None:
    now = timezone.now()
    if wanted is Act.RETRY:
        rows = [finished("failed", ago()) for _ in range(3)]
    else:
        run_after = now + timedelta(hours=1) if wanted is Act.RUN_NOW else None
        rows = [task_try.task_execution for task_try in enqueue(3, replace(ADD, run_after=run_after))]
    column = "id" if table == "taskexecution" else "task_execution_id"

    with open_transaction(f"SELECT 1 FROM i3tasks_{table} WHERE {column} = {rows[1].pk} FOR UPDATE"):
        made = act(wanted, until=now + timedelta(hours=3))

    assert (made.done, made.skipped) == (2, {bulk.HELD: 1})


def test_each_act_says_where_it_applies() -> None:
    assert set(bulk.APPLIES) == set(bulk._DOES_NOT_APPLY) == set(Act) - {Act.DISCARD}
    assert all(isinstance(one, State) for states in bulk.APPLIES.values() for one in states)

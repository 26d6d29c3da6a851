"""Pausing a queue: nothing of it begins or is published, nothing is lost, and at its end all is due again."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from i3tasks.exceptions import StoreUnavailable, UnknownQueueError
from i3tasks.models import QueuePause, TaskExecutionTry
from i3tasks.store.audit import audit
from i3tasks.store.cancel import cancel
from i3tasks.store.claims import claim
from i3tasks.store.dispatching import confirm_published, next_due, take_due
from i3tasks.store.enqueue import NewExecution
from i3tasks.store.fallback import WaitingRequest, take_waiting
from i3tasks.store.health import health
from i3tasks.store.pauses import ASIDE_FROM, is_aside, known_pauses, pause, paused_queues, release, resume
from i3tasks.store.requests import Claimed, Refusal, TryRef
from i3tasks.telemetry import subscribe
from i3tasks.testing import drain
from tests.store.helpers import ADD, at, enqueue, in_threads, lease, open_transaction, plans, queries_of, request, row

pytestmark = pytest.mark.django_db

HEAVY = NewExecution("tests.shop.tasks", "add", [1, 2], {}, queue_name="heavy")


def later(**ago: float) -> Any:
    return at(timezone.now() + timedelta(**ago))


def test_what_a_paused_queue_has_is_refused_and_waits_for_its_end() -> None:
    [mine], [other] = enqueue(call=HEAVY), enqueue()
    pause("heavy")
    refused, claimed = claim([request(mine), request(other)])
    assert refused is Refusal.PAUSED
    assert isinstance(claimed, Claimed)
    assert row(mine).dispatch_at >= ASIDE_FROM  # type: ignore[operator]
    assert row(mine).claim_token is None
    resume("heavy")
    assert release(10, paused_queues()) == 1
    assert [ref.try_id for ref in take_due(10, now=later(seconds=1))] == [mine.pk]
    assert len(lease(mine)) == 1


@pytest.mark.parametrize("queue_name", [None, "", "default"])
def test_calls_without_a_queue_are_of_the_default_one(queue_name: str | None) -> None:
    [task_try] = enqueue(call=NewExecution("m", "f", [], {}, queue_name=queue_name))
    pause("heavy")
    pause(None)
    assert set(paused_queues()) == {"default", "heavy"}
    assert claim([request(task_try)]) == [Refusal.PAUSED]
    resume(None)
    assert isinstance(claim([request(task_try)])[0], Claimed)


def test_a_caller_that_runs_a_call_itself_is_not_refused() -> None:
    [task_try] = enqueue(call=HEAVY)
    pause("heavy")
    [claimed] = claim([request(task_try, heeds_pauses=False)])
    assert isinstance(claimed, Claimed)


@pytest.mark.parametrize("far_off", [datetime(9500, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_a_row_that_is_put_off_for_millennia_is_not_taken_for_one_set_aside(far_off: datetime) -> None:
    [mine] = enqueue(call=NewExecution("m", "f", [], {}, queue_name="heavy", run_after=far_off))
    [other] = enqueue()
    assert release(10, paused_queues()) == 0
    refused, claimed = claim([request(mine), request(other)])  # its message was published by an earlier release
    assert refused is Refusal.NOT_DUE
    assert isinstance(claimed, Claimed)
    assert release(10, paused_queues()) == 0
    assert row(mine).dispatch_at >= far_off  # type: ignore[operator]
    assert not is_aside(row(mine))
    pause("heavy")
    [aside] = enqueue(call=HEAVY)
    claim([request(aside)])
    assert is_aside(row(aside))
    resume("heavy")
    assert release(10, paused_queues()) == 1
    assert row(aside).dispatch_at < ASIDE_FROM  # type: ignore[operator]
    assert row(mine).dispatch_at >= far_off  # type: ignore[operator]


def test_what_is_put_off_waits_for_its_time_first() -> None:
    moment = timezone.now() + timedelta(hours=1)
    [task_try] = enqueue(call=NewExecution("m", "f", [], {}, queue_name="heavy", run_after=moment))
    pause("heavy")
    assert claim([request(task_try)]) == [Refusal.NOT_DUE]
    assert take_due(10, paused=paused_queues(), now=at(moment - timedelta(seconds=1))) == []
    assert row(task_try).dispatch_at == moment + timedelta(microseconds=1)
    assert take_due(10, paused=paused_queues(), now=at(moment + timedelta(seconds=1))) == []
    assert row(task_try).dispatch_at >= ASIDE_FROM  # type: ignore[operator]


def test_a_dispatcher_sets_aside_what_it_would_publish_and_takes_what_is_behind() -> None:
    mine, [other] = enqueue(25, HEAVY), enqueue()
    TaskExecutionTry.objects.filter(pk__in=[task_try.pk for task_try in mine[:5]]).update(publish_count=1)
    pause("heavy")
    taken = take_due(10, paused=paused_queues(), now=later(hours=1))
    assert [ref.try_id for ref in taken] == [other.pk]
    take_due(10, paused=paused_queues(), now=later(hours=1))
    assert {task_try.dispatch_at for task_try in map(row, mine)} == {row(mine[0]).dispatch_at}
    assert {task_try.publish_count for task_try in map(row, mine)} == {0}
    assert take_due(10, paused=paused_queues(), now=later(days=9)) == [TryRef.of(row(other))]


def test_what_is_set_aside_is_taken_by_no_worker() -> None:
    [mine] = enqueue(call=HEAVY)
    ref = TryRef.of(mine)
    pause("heavy")
    claim([request(mine)])
    aside = row(mine).dispatch_at
    every = WaitingRequest(("heavy",), timedelta(0), timedelta(0), 10, 10, timedelta(0))
    assert take_waiting([every], now=later(days=300)) == [[]]
    confirm_published([ref])
    assert (row(mine).dispatch_at, row(mine).publish_count) == (aside, 0)
    assert next_due(timedelta(days=300)) is None
    assert audit(overdue=timedelta(0)) == []


def test_the_end_of_a_pause_makes_due_in_slices_and_leaves_other_pauses_alone() -> None:
    pause("default")
    pause("heavy")
    light, heavy = enqueue(3), enqueue(5, HEAVY)
    claim([request(task_try) for task_try in [*light, *heavy]])
    resume("heavy")
    assert [release(2, paused_queues()) for _ in range(4)] == [2, 2, 1, 0]
    assert {ref.try_id for ref in take_due(100, now=later(seconds=1))} == {task_try.pk for task_try in heavy}
    resume("default")
    assert release(100, paused_queues()) == 3


def test_what_was_set_aside_at_the_very_end_comes_back_in_the_next_pause_too() -> None:
    """Each pause has an instant of its own: nothing of an earlier one can be taken for one of a later one."""
    [task_try] = enqueue(call=HEAVY)
    pause("heavy")
    known = paused_queues()
    resume("heavy")
    pause("heavy")
    take_due(10, paused=known, now=later(hours=1))
    first = row(task_try).dispatch_at
    assert release(10, paused_queues()) == 1
    take_due(10, paused=paused_queues(), now=later(hours=1))
    assert row(task_try).dispatch_at != first
    assert row(task_try).dispatch_at >= ASIDE_FROM  # type: ignore[operator]


def test_what_waits_in_a_paused_queue_can_be_called_off() -> None:
    [task_try] = enqueue(call=HEAVY)
    pause("heavy")
    claim([request(task_try)])
    cancel([task_try.task_execution_id])
    resume("heavy")
    assert release(10, paused_queues()) == 0
    assert row(task_try).task_execution.outcome == "cancelled"


def test_pausing_twice_changes_nothing_and_says_so() -> None:
    assert pause("heavy", by="ann") is True
    assert pause("heavy", by="bob") is False
    assert QueuePause.objects.get().paused_by == "ann"
    assert resume("heavy") is True
    assert resume("heavy") is False


def test_queues_that_there_are_not_are_refused() -> None:
    for change in (pause, resume):
        with pytest.raises(UnknownQueueError, match="There is no queue 'feather' in I3TASKS"):
            change("feather")


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_pause_that_another_transaction_holds_is_left_alone_and_keeps_no_one_waiting() -> None:
    pause("heavy")
    with open_transaction("SELECT 1 FROM i3tasks_queuepause FOR UPDATE"):
        with pytest.raises(StoreUnavailable, match="another transaction holds the pause"):
            resume("heavy")
        with pytest.raises(CommandError, match="another transaction holds the pause"):
            call_command("i3tasks_resume_queue", "heavy")
    with open_transaction(
        "INSERT INTO i3tasks_queuepause (queue_name, paused_at) VALUES ('default', now()) RETURNING id"
    ):
        with pytest.raises(StoreUnavailable, match="another transaction holds the pause"):
            pause("default")
        with pytest.raises(CommandError, match="another transaction holds the pause"):
            call_command("i3tasks_pause_queue", "default")
    assert paused_queues().keys() == {"heavy"}
    assert resume("heavy")


def test_a_queue_that_has_left_the_settings_can_be_resumed() -> None:
    QueuePause.objects.create(queue_name="former", paused_at=timezone.now())
    assert resume("former") is True
    assert not QueuePause.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_pausing_and_resuming_are_events_with_their_author() -> None:
    said: list[Any] = []
    unsubscribe = subscribe(lambda event, facts: said.append((event.name, facts)))
    pause("heavy", by="ann\x00" + "n" * 300)
    pause("heavy", by="bob")
    resume("heavy", by="bob")
    unsubscribe()
    assert [name for name, _ in said] == ["queue_paused", "queue_resumed"]
    assert said[0][1]["by"].startswith("ann\N{REPLACEMENT CHARACTER}nnn")
    assert len(said[0][1]["by"]) == 255
    assert said[1][1] == {"queue": "heavy", "by": "bob"}


# ------------------------------------------------------------------------------------------------- what it costs


def test_a_claim_asks_for_pauses_in_a_statement_that_it_makes_anyway() -> None:
    first, second = enqueue(2)
    without = queries_of(lambda: claim([request(first)]))
    pause("heavy")
    assert queries_of(lambda: claim([request(second)])) == without


@pytest.mark.postgres
def test_nothing_that_a_pause_adds_reads_what_has_ended() -> None:
    pause("heavy")
    pause("default")
    paused = paused_queues()

    def statements() -> None:
        release(500, paused)
        [task_try] = enqueue()
        claim([request(task_try)])

    found = plans(statements, deferred=50)
    gaps, claims = found[:3], [plan for plan in found if "i3tasks_queuepause" in plan]
    assert all("Index Only Scan using i3tasks_try_dispatch_idx" in plan for plan in gaps), gaps
    assert len(claims) == 2, "one statement finds that it can't be had, and one why"
    for plan in claims:
        assert "Seq Scan on i3tasks_taskexecution " not in plan, plan
        assert "Seq Scan on i3tasks_taskexecutiontry" not in plan, plan


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_what_another_transaction_has_locked_is_released_later() -> None:
    mine, held = enqueue(2, HEAVY)
    pause("heavy")
    claim([request(mine), request(held)])
    resume("heavy")
    with open_transaction(f"SELECT 1 FROM i3tasks_taskexecutiontry WHERE id = {held.pk} FOR UPDATE"):
        assert release(10, paused_queues()) == 1
    assert release(10, paused_queues()) == 1


@pytest.mark.django_db(transaction=True)
def test_claims_beside_a_resume_lose_nothing() -> None:
    if connection.vendor == "sqlite" and "mode=memory" in str(connection.settings_dict["NAME"]):
        pytest.skip("needs connections of its own")
    tries = enqueue(20, HEAVY)
    pause("heavy")
    asks = [lambda task_try=task_try: claim([request(task_try)]) for task_try in tries]
    in_threads([*asks[:3], lambda: resume("heavy"), *asks[3:6]])
    release(100, paused_queues())
    left = TaskExecutionTry.objects.filter(claim_token__isnull=True)
    assert not left.filter(dispatch_at__gte=ASIDE_FROM).exists()


@pytest.mark.parametrize("name", ["no-such", "\x00", "\ud800"])
def test_no_name_that_there_is_not_reaches_the_database(name: str) -> None:
    for act in (pause, resume):
        with pytest.raises(UnknownQueueError, match="There is no queue"):
            act(name)


@pytest.mark.parametrize("command", ["i3tasks_pause_queue", "i3tasks_resume_queue"])
def test_an_empty_name_on_the_command_line_is_not_the_default_queue(command: str) -> None:
    QueuePause.objects.create(queue_name="default", paused_at=timezone.now())
    with pytest.raises(CommandError, match="name is empty"):
        call_command(command, "heavy", "")
    assert [one.queue_name for one in QueuePause.objects.all()] == ["default"]


# ------------------------------------------------------------------------------------------------ who hears of it


def problems() -> Any:
    return async_to_sync(health)(timezone.now())["problems"]


def test_health_says_that_a_queue_is_paused_and_does_not_call_its_rows_stuck() -> None:
    long_ago = timezone.now() - timedelta(hours=2)
    [mine], [other] = enqueue(call=HEAVY), enqueue()
    for task_try, age in ((mine, 0), (other, 60)):
        since = long_ago + timedelta(minutes=age)
        TaskExecutionTry.objects.filter(pk=task_try.pk).update(asked_at=since, publish_count=1)
    pause("heavy", by="ann")
    report = async_to_sync(health)(timezone.now())
    assert report["oldest_pending_age_seconds"] in range(3600, 3700)
    [paused] = [problem for problem in report["problems"] if "paused" in problem]
    assert paused.startswith("queue 'heavy' is paused by ann, since 20")
    TaskExecutionTry.objects.filter(pk=other.pk).delete()
    report = async_to_sync(health)(timezone.now())
    assert (report["status"], report["problems"]) == ("warning", [paused])
    resume("heavy")
    assert async_to_sync(health)(timezone.now())["status"] == "critical"


def test_health_looks_behind_many_rows_of_paused_queues_and_says_where_it_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("i3tasks.store.health.MOST_OF_PAUSED", 3)
    enqueue(2, HEAVY)
    pause("heavy")
    assert not any("oldest tries" in problem for problem in problems())
    enqueue(1, HEAVY)
    assert "the 3 oldest tries are of paused queues: how long others wait is not known" in problems()


def test_drain_leaves_a_paused_queue_alone() -> None:
    [mine], [other] = enqueue(call=HEAVY), enqueue(call=ADD_TWO)
    pause("heavy")
    assert [task_try.pk for task_try in drain()] == [other.pk]
    resume("heavy")
    assert [task_try.pk for task_try in drain()] == [mine.pk]


ADD_TWO = NewExecution(ADD.module_name, ADD.func_name, [1, 2], {})


def run(command: str, *arguments: str) -> str:
    stream = io.StringIO()
    call_command(command, *arguments, stdout=stream)
    return stream.getvalue()


def test_the_commands_pause_and_resume_and_say_what_they_did() -> None:
    assert run("i3tasks_pause_queue", "heavy", "default", "--by", "ann") == "heavy: is paused\ndefault: is paused\n"
    assert set(QueuePause.objects.values_list("queue_name", "paused_by")) == {("heavy", "ann"), ("default", "ann")}
    assert run("i3tasks_pause_queue", "heavy") == "heavy: was paused already\n"
    assert json.loads(run("i3tasks_resume_queue", "heavy", "push", "--json")) == [
        {"queue": "heavy", "changed": True},
        {"queue": "push", "changed": False},
    ]
    assert run("i3tasks_resume_queue", "heavy") == "heavy: was not paused\n"


def test_a_command_with_an_unknown_queue_changes_none() -> None:
    with pytest.raises(CommandError, match="no queue 'feather'"):
        call_command("i3tasks_pause_queue", "heavy", "feather")
    assert paused_queues() == {}


def test_a_process_asks_anew_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    known_pauses.forget()
    pause("heavy")
    assert not known_pauses.hold("heavy")
    assert [known_pauses.grow_stale(10), known_pauses.grow_stale(11)] == [True, False]
    known_pauses.read()
    assert known_pauses.hold("heavy")
    assert not known_pauses.hold(None)
    assert known_pauses.grow_stale(12)

"""A stranger's open transaction holds all rows of one of our tables: the work of all others goes on.

Each table, each strength of lock. The stranger stays for as long as the test looks; whatever waited for it would meet
`lock_timeout`, which is an error here. What the stranger holds is done once it has gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from django.apps import apps
from django.db import connection
from django.utils import timezone

from i3tasks import RESULT, chain, group, schedule_task, task
from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.outcome import Released, Success
from i3tasks.engine.beat import Beat
from i3tasks.engine.dispatcher import Dispatcher
from i3tasks.models import (
    BoardAct,
    Deploy,
    GroupSlice,
    QueuePause,
    ScheduleTick,
    TaskExecution,
    TaskExecutionTry,
    Worker,
)
from i3tasks.store import workflows
from i3tasks.store.ages import Ages
from i3tasks.store.audit import audit
from i3tasks.store.board_acts import begin
from i3tasks.store.bulk import Act
from i3tasks.store.cancel import cancel, retry_failed
from i3tasks.store.claims import claim
from i3tasks.store.dispatching import confirm_published, deny_published, put_back, take_due
from i3tasks.store.expiry import expire_leases
from i3tasks.store.fallback import WaitingRequest, take_waiting
from i3tasks.store.groups import expire_groups
from i3tasks.store.leases import renew
from i3tasks.store.pauses import known_pauses, pause, resume
from i3tasks.store.requests import LOCKED, Claimed, Settled, TryRef
from i3tasks.store.retention import clean
from i3tasks.store.search import Search
from i3tasks.store.settle import settle
from i3tasks.store.slices import open_slice
from i3tasks.store.stacks import ask
from i3tasks.store.workers import WorkerFacts, note_workers
from tests.shop.flows import note
from tests.shop.tasks import add
from tests.store.helpers import enqueue, failure, lease, open_transaction, request, row, says
from tests.store.test_claims import Heartbeat
from tests.store.test_workers import FACTS

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

TABLES = sorted(model._meta.db_table for model in apps.get_app_config("i3tasks").get_models())
STRENGTHS = ["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"]
NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class OfAProcess:
    """A heartbeat of a process."""

    name: str
    is_new: bool = True

    def facts(self) -> WorkerFacts:
        return replace(FACTS, id=self.name, is_new=self.is_new, release=f"of {self.name}")


@task(unique=True)
def only_one(number: int) -> None: ...


@pytest.fixture
def rows_in_all_tables(monkeypatch: pytest.MonkeyPatch) -> list[Claimed]:
    """What the stranger will hold: a running try, an ended one with its result, groups, keys, schedules, ticks, slices,
    an act of the board, and a stack that was asked for.

    Gives the leases that run.
    """
    monkeypatch.setattr(workflows, "WRITTEN_AT_ONCE", 2)
    schedule_task(add, "* * * * *", name="held", args=[1, 2])
    Beat().pass_once(NOON)
    QueuePause.objects.create(queue_name="of another project", paused_at=NOON)
    ask(1, by="ann", now=NOON)
    note_workers([OfAProcess("held")], now=NOON)
    only_one.delay(0)
    for finished_at in (None, NOON - timedelta(days=365)):  # and one that the next act would delete
        act = begin(Search(), Act.RETRY, by="ann", expected=0, until=None, now=NOON)
        BoardAct.objects.filter(pk=act.pk).update(finished_at=finished_at)
    chain(note.s("first"), group(note.s(f"held{n}") for n in range(6))).delay()
    group(note.s("member"), deadline=timedelta(hours=1)).then(note.s(RESULT)).delay()
    waiting = TaskExecutionTry.objects.select_related("task_execution").order_by("-pk")
    ended, *running = lease(*waiting, lease_seconds=36_000)
    settle([says(ended, Success(1))])
    first = next(claimed for claimed in running if claimed.args == ["first"])
    settle([says(first, Success(1))])
    ask(running[0].try_id, by="ann", now=NOON)
    return [claimed for claimed in running if claimed is not first]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Also on the connections that dispatchers and beats open anew."""
    options = {**connection.settings_dict["OPTIONS"], "options": "-c lock_timeout=1s"}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    connection.close()
    yield
    connection.close()


def enqueues_go_on() -> None:
    add.delay(1, 2)
    add.delay_many([(1, 2), (3, 4)])
    add.using(idempotency_key="of another").delay(1, 2)
    only_one.delay(1)
    chain(note.s("a"), group(note.s("b"), note.s("c"))).delay()
    group(note.s("d"), note.s("e")).then(note.s(RESULT)).delay()


def work_goes_on() -> None:
    first, published, refused, returned, *running = enqueue(8)
    [answer] = claim([request(first)])
    assert isinstance(answer, Claimed)
    done, failed, again, lost = lease(*running)
    [renewed] = renew([Heartbeat(done, failed, again, lost)])
    assert not renewed.lost  # type: ignore[union-attr]
    outcomes = ((done, Success(1)), (failed, failure()), (again, failure(delay=60)), (answer, Released()))
    assert all(isinstance(item, Settled) for item in settle([says(*item) for item in outcomes]))
    confirm_published([TryRef.of(published)])
    deny_published([TryRef.of(refused)])
    put_back([TryRef.of(returned)])
    assert row(published).publish_count == 1
    expire_leases(10, clock=SYSTEM_CLOCK, now=timezone.now() + timedelta(seconds=40))
    assert row(lost.try_id).error_class == "i3tasks.exceptions.WorkerLost"
    assert retry_failed([failed.execution_id], now=timezone.now()).tries
    cancel([refused.task_execution_id])
    assert TaskExecution.objects.get(pk=refused.task_execution_id).outcome == "cancelled"


def dispatchers_go_on() -> None:
    [due] = enqueue()
    TaskExecutionTry.objects.filter(pk=due.pk).update(dispatch_at="2020-01-01T00:00Z")
    assert Dispatcher().pass_once() < 1
    assert row(due).dispatch_at.year > 2020  # type: ignore[union-attr]
    [waiting] = enqueue()
    TaskExecutionTry.objects.filter(pk=waiting.pk).update(dispatch_at="2021-01-01T00:00Z", asked_at="2021-01-01T00:00Z")
    asked = WaitingRequest(("default",), None, timedelta(seconds=1), room=100, threads=100)
    assert waiting.pk in {ref.try_id for ref in take_waiting([asked])[0]}
    expire_groups(10, now=timezone.now() + timedelta(hours=2))
    take_due(100)


def beats_go_on() -> None:
    schedule_task(add, "* * * * *", name="of another", args=[1, 2])
    beat = Beat()
    beat.pass_once(NOON + MINUTE)
    beat.pass_once(NOON + 2 * MINUTE)
    assert (beat.is_down, beat.problem) == (False, "")
    assert ScheduleTick.objects.filter(schedule_key="of another", slot=NOON + 2 * MINUTE).count() == 1


def retention_goes_on() -> None:
    [claimed] = lease(*enqueue())
    settle([says(claimed, Success(1))])
    clean(Ages(failed=timedelta(), other=timedelta()), now=timezone.now() + timedelta(seconds=1))
    assert not TaskExecution.objects.filter(pk=claimed.execution_id).exists()


def processes_go_on() -> None:
    """The first heartbeat of one deletes rows of processes and deploys that are long gone, as the stranger's are."""
    for is_new in (True, False):
        assert note_workers([OfAProcess("other", is_new)]) == [None]
    assert Worker.objects.get(pk="other").heartbeat_at > NOON
    assert Deploy.objects.latest("pk").release == "of other"


def people_go_on() -> None:
    assert pause("push", by="ann")
    known_pauses.read()
    assert resume("push")
    begin(Search(), Act.RETRY, by="bob", expected=0, until=None, now=timezone.now())
    [claimed] = lease(*enqueue())
    ask(claimed.try_id, by="bob", now=timezone.now())


def slices_go_on() -> None:
    handle = chain(note.s("free"), group(note.s(f"free{n}") for n in range(6))).delay()
    [claimed] = lease(handle.task_execution_try)
    settle([says(claimed, Success(1))])
    for _ in range(9):
        open_slice()
    assert TaskExecution.objects.filter(task_args__0__startswith="free").count() == 7


GOES_ON: list[Callable[[], None]] = [
    enqueues_go_on,
    work_goes_on,
    dispatchers_go_on,
    beats_go_on,
    slices_go_on,
    retention_goes_on,
    processes_go_on,
    people_go_on,
]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("table", TABLES)
def test_all_others_go_on_while_every_row_of_a_table_is_held(
    rows_in_all_tables: list[Claimed], events: list[str], table: str, strength: str
) -> None:
    with open_transaction(f"SELECT 1 FROM {table} FOR {strength}"):
        for others_do in GOES_ON:
            others_do()
        settle([says(claimed, Success(1)) for claimed in rows_in_all_tables])
    settle([says(claimed, Success(1)) for claimed in rows_in_all_tables])
    theirs = TaskExecution.objects.filter(pk__in=[claimed.execution_id for claimed in rows_in_all_tables])
    assert set(theirs.values_list("outcome", flat=True)) == {"success"}
    assert audit(overdue=timedelta(days=3650)) == []
    assert not {"internal_error", "store_unavailable", "beat_failed", "dispatch_failed"} & set(events)


def test_the_stranger_holds_a_row_of_each_table(rows_in_all_tables: list[Claimed]) -> None:
    empty = [model._meta.label for model in apps.get_app_config("i3tasks").get_models() if not model.objects.exists()]  # type: ignore[attr-defined]
    assert empty == []
    assert GroupSlice.objects.count() == 2


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO i3tasks_schedulestate (schedule_key, first_seen, last_error, created_at, updated_at) "
        "VALUES ('of another', now(), '', now(), now())",
        "INSERT INTO i3tasks_scheduletick (schedule_key, slot, created_at) "
        f"VALUES ('other', '{(NOON + 2 * MINUTE).isoformat()}', now())",
    ],
    ids=["state", "tick"],
)
def test_a_beat_waits_for_no_row_that_a_stranger_has_inserted(statement: str, events: list[str]) -> None:
    schedule_task(add, "* * * * *", name="other", args=[1, 2])
    schedule_task(add, "* * * * *", name="third", args=[1, 2])
    beat = Beat()
    beat.pass_once(NOON + MINUTE)
    schedule_task(add, "* * * * *", name="of another", args=[1, 2])
    with open_transaction(statement):
        beat.pass_once(NOON + 2 * MINUTE)
        assert ScheduleTick.objects.filter(schedule_key="third", slot=NOON + 2 * MINUTE).exists()
    beat.pass_once(NOON + 2 * MINUTE)
    assert ScheduleTick.objects.filter(slot=NOON + 2 * MINUTE).count() == 3
    assert "beat_failed" not in events


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("strength", STRENGTHS[:3])
def test_a_process_whose_own_row_is_held_writes_it_later(strength: str) -> None:
    """Its heartbeat is in one transaction with its claims and settlements: that waits for nothing."""
    mine, other = OfAProcess("mine"), OfAProcess("other", is_new=False)
    note_workers([mine], now=NOON)
    with open_transaction(f"SELECT 1 FROM i3tasks_worker WHERE id = 'mine' FOR {strength}"):
        assert note_workers([mine, other]) == [LOCKED, None]
        assert Worker.objects.get(pk="mine").heartbeat_at == NOON
    assert note_workers([mine, other]) == [None, None]
    assert Worker.objects.get(pk="mine").heartbeat_at > NOON

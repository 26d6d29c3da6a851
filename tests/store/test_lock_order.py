"""Each store function locks rows in the order of `locks`: schedules, their states, slices, tries, executions, groups,
keys, acts of the board.

Of each table, by ascending primary key. What waits for no lock may take its rows in any order, as WAITLESS do.

PostgreSQL itself says which rows a transaction holds: those whose `xmax` is the transaction, and those that it wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from i3tasks import RESULT, chain, delete_schedule, group, schedule_task, task
from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.outcome import Released, Success
from i3tasks.engine.beat import Beat
from i3tasks.models import (
    BoardAct,
    GroupSlice,
    ScheduleState,
    TaskExecution,
    TaskExecutionTry,
    TaskGroup,
    TaskKey,
    TaskSchedule,
)
from i3tasks.store import workflows
from i3tasks.store.ages import Ages
from i3tasks.store.appending import append_step
from i3tasks.store.board_acts import begin, take
from i3tasks.store.board_acts import note as note_act
from i3tasks.store.bulk import Act, Slice, slices
from i3tasks.store.cancel import cancel, cancel_workflow, reschedule, retry_failed
from i3tasks.store.claims import claim
from i3tasks.store.database import atomic, locked, rows
from i3tasks.store.dispatching import confirm_published, deny_published, put_back, take_due, withhold
from i3tasks.store.expiry import expire_leases
from i3tasks.store.fallback import WaitingRequest, take_unheard, take_waiting
from i3tasks.store.groups import cancel_group, close_group, expire_groups
from i3tasks.store.keys import argument_key
from i3tasks.store.leases import renew
from i3tasks.store.pauses import pause, release, resume
from i3tasks.store.requests import Claimed, TryRef
from i3tasks.store.retention import clean
from i3tasks.store.schedules import known_schedules, switch
from i3tasks.store.search import Search
from i3tasks.store.settle import settle
from i3tasks.store.slices import open_slice
from i3tasks.store.ticks import run_now
from tests.shop.flows import note
from tests.shop.tasks import add
from tests.store.helpers import ADD, enqueue, failure, in_threads, lease, request, says
from tests.store.test_claims import Heartbeat

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("sent")]

MODELS: tuple[Any, ...] = (
    TaskSchedule,
    ScheduleState,
    GroupSlice,
    TaskExecutionTry,
    TaskExecution,
    TaskGroup,
    TaskKey,
    BoardAct,
)
TABLES = [model._meta.db_table for model in MODELS]
WITHOUT_WAITING = "SKIP LOCKED"
Row = tuple[int, int]
"""The table's place in the order, and the key."""


@task(unique=True)
def alone(number: int) -> None: ...


@dataclass
class Recorder:
    """Looks after each statement at the rows that the transaction holds, and notes where it went backwards.

    Savepoints have transactions of their own; what they hold is given back when they are rolled back.
    """

    known: set[Row]
    held: dict[int, set[Row]] = field(default_factory=dict)  # by transaction
    locked: set[Row] = field(default_factory=set)
    """All that were held at any time: those that were deleted, too."""
    backwards: list[str] = field(default_factory=list)
    parts: dict[int, set[int]] = field(default_factory=dict)  # by transaction

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        answer = execute(sql, params, many, context)
        if connection.in_atomic_block and sql.startswith(("WITH", "SELECT", "UPDATE", "DELETE", "INSERT")):
            self._look(sql)
        return answer

    def _look(self, sql: str) -> None:
        transaction, now = self._held_rows()
        before = self.held.get(transaction, set()) & now
        fresh = (now & self.known) - before
        if before and fresh and min(fresh) < max(before):
            waits = "" if WITHOUT_WAITING in sql else "may wait, "
            self.backwards.append(f"{waits}{min(fresh)} after {max(before)}: {sql[:300]}")
        self.held[transaction] = before | fresh
        self.locked |= fresh

    def _held_rows(self) -> tuple[int, set[Row]]:
        found: set[Row] = set()
        with connection.connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()::text::bigint")
            [transaction] = cursor.fetchone()
            parts = self.parts.setdefault(transaction, {transaction})
            cursor.execute("SELECT transactionid::text::bigint FROM pg_locks WHERE pid = pg_backend_pid()")
            parts |= {part for (part,) in cursor.fetchall() if part is not None}
            for part in list(parts):
                cursor.execute("SELECT pg_xact_status(%s::text::xid8)", [part])
                parts -= {part} if cursor.fetchone() == ("aborted",) else set()
            for place, table in enumerate(TABLES):
                cursor.execute(
                    f"SELECT id FROM {table} WHERE xmin::text::bigint = ANY(%s) OR xmax::text::bigint = ANY(%s)",
                    [list(parts)] * 2,
                )
                found |= {(place, pk) for (pk,) in cursor.fetchall()}
        return transaction, found


def known_rows() -> set[Row]:
    return {(place, pk) for place, model in enumerate(MODELS) for pk in model.objects.values_list("pk", flat=True)}


def recorded(function: Callable[[], Any]) -> Recorder:
    recorder = Recorder(known_rows())
    with connection.execute_wrapper(recorder):
        function()
    return recorder


@dataclass
class World:
    """Nested groups, chains and plain calls; of each some run, some wait, and some have failed."""

    outer: TaskGroup
    running: list[Claimed]
    waiting: list[TaskExecutionTry]
    failed: list[int]
    plain: list[TaskExecutionTry]
    deferred: list[TaskExecutionTry]
    failed_alone: list[int]
    """Of a unique task. Their keys have been written in the order of their text, as a retry is to lock them."""

    @property
    def late(self) -> Any:
        return timezone.now() + timedelta(hours=5)

    @property
    def refs(self) -> list[TryRef]:
        return [TryRef.of(task_try) for task_try in reversed(self.plain)]


@pytest.fixture
def world() -> World:
    inner = chain(group(note.s(f"inner {number}") for number in range(3)), note.s("after"))
    outer = group(
        [inner, *(chain(note.s(f"first {number}"), note.s("second")) for number in range(4))],
        wait_for_all=True,
        deadline=timedelta(hours=4),
    ).then(note.s(RESULT))
    started = outer.delay()
    waiting = list(TaskExecutionTry.objects.select_related("task_execution").order_by("-pk"))
    answers = claim([request(task_try) for task_try in waiting[:5]])
    running = [answer for answer in answers if isinstance(answer, Claimed)]
    plain = enqueue(5)
    failed = [task_try.task_execution_id for task_try in plain[3:]]
    for answer in claim([request(task_try) for task_try in plain[3:]]):
        assert isinstance(answer, Claimed)
        settle([says(answer, failure())])
    deferred = enqueue(3, replace(ADD, run_after=timezone.now() + timedelta(days=1)))
    numbers = sorted(range(6), key=lambda number: argument_key(alone.spec, [number], {}).text)
    of_unique = [lease(alone.delay(number).task_execution_try)[0] for number in numbers]
    settle([says(claimed, failure()) for claimed in of_unique])
    failed_alone = [claimed.execution_id for claimed in of_unique]
    return World(started, running, waiting[5:], failed, plain[:3], deferred, failed_alone)


FUNCTIONS: dict[str, Callable[[World], Any]] = {
    "claim": lambda world: claim([request(task_try) for task_try in (*world.plain, *world.waiting)]),
    "renew": lambda world: renew([Heartbeat(*world.running)]),
    "settle as success": lambda world: settle([says(claimed, Success(1)) for claimed in world.running]),
    "settle as failure": lambda world: settle([says(claimed, failure()) for claimed in world.running]),
    "settle for a retry": lambda world: settle([says(claimed, failure(delay=1)) for claimed in world.running]),
    "settle as released": lambda world: settle([says(claimed, Released()) for claimed in world.running]),
    "expire_leases": lambda world: expire_leases(100, clock=SYSTEM_CLOCK, now=world.late),
    "expire_groups": lambda world: expire_groups(100, now=world.late),
    "take_due": lambda world: take_due(100, now=world.late),
    "confirm_published": lambda world: confirm_published(world.refs),
    "deny_published": lambda world: deny_published(world.refs),
    "put_back": lambda world: put_back(world.refs),
    "cancel": lambda world: cancel([*TaskExecution.objects.order_by("-pk").values_list("pk", flat=True)]),
    "cancel_workflow": lambda world: cancel_workflow(group_ids=[world.outer.pk]),
    "cancel_group": lambda world: cancel_group(world.outer.pk),
    "close_group": lambda world: close_group(TaskGroup.objects.exclude(pk=world.outer.pk).get().pk),
    "retry_failed": lambda world: retry_failed(world.failed[::-1], now=timezone.now()),
    "reschedule": lambda world: reschedule(world.plain[0].task_execution_id, world.late, now=timezone.now()),
    "append_step": lambda world: append_step(world.plain[0].task_execution, note.as_step("more"), now=timezone.now()),
    "append_step to a group": lambda world: append_step(world.outer, note.as_step("more"), now=timezone.now()),
    "retry_failed of unique calls": lambda world: retry_failed(world.failed_alone[::-1], now=timezone.now()),
    "withhold": lambda world: withhold(world.refs),
    "claim while a queue is paused": lambda world: (pause(None), claim([request(item) for item in world.plain])),
    "take_waiting": lambda world: take_waiting([WAITING], now=world.late),
    "take_unheard": lambda world: (confirm_published(world.refs), take_unheard("default", FEW, now=in_an_hour())),
    "release": lambda world: (withhold_all(world), resume(None), release(100, {}, now=world.late)),
    **{f"slices: {act.value}": lambda world, act=act: acted(world, act) for act in Act},
}
WAITING = WaitingRequest(("default",), timedelta(0), timedelta(0), room=100, threads=100)
WAITLESS: dict[str, Callable[[World], Any]] = {
    "claim by tickets": lambda world: claim_by_tickets(world),
    "open_slice": lambda world: open_slice(now=world.late),
    "clean": lambda world: clean(AGES, now=world.late),
    "clean what a group has left": lambda world: (cancel_group(world.outer.pk), clean(AGES, now=world.late)),
}
"""They skip what others hold, and take what is free in the order in which they come to it."""
AGES = Ages(failed=timedelta(), other=timedelta())


def claim_by_tickets(world: World) -> None:
    """The tickets name the oldest; each of them brings a younger one of a higher priority."""
    higher = enqueue(3, replace(ADD, queue_name="default", priority=5))
    tickets = enqueue(3, replace(ADD, queue_name="default"))
    confirm_published([TryRef.of(task_try) for task_try in (*higher, *tickets)])
    answers = claim([request(task_try, is_ticket=True) for task_try in (*tickets, *world.plain)])
    assert {answer.try_id for answer in answers if isinstance(answer, Claimed)} >= {item.pk for item in higher}


@pytest.fixture
def sliced(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Besides, two groups of which most members are still to be written."""
    monkeypatch.setattr(workflows, "WRITTEN_AT_ONCE", 2)
    for name in ("one", "other"):
        handle = chain(note.s(name), group(note.s(f"{name} {number}") for number in range(9))).delay()
        settle([says(lease(handle.task_execution_try)[0], Success(1))])
    return world


@pytest.mark.parametrize("name", WAITLESS)
def test_what_locks_in_any_order_waits_for_none_of_its_locks(sliced: World, name: str) -> None:
    """So that it can be no part of a circle of transactions that wait for each other."""
    recorder = recorded(lambda: WAITLESS[name](sliced))
    assert recorder.locked, "it locks something, or there is nothing to see"
    assert [found for found in recorder.backwards if found.startswith("may wait")] == []


OF_SCHEDULES: dict[str, Callable[[], Any]] = {
    "schedule_task": lambda: schedule_task(add, "1 * * * *", name="often", args=[1, 2]),
    "delete_schedule": lambda: delete_schedule("often"),
    "switch": lambda: (switch(TaskSchedule.objects.all(), enabled=False), switch(TaskSchedule.objects, enabled=True)),
    "a pass of the beat": lambda: Beat().pass_once(timezone.now() + timedelta(minutes=2)),
    "run_now": lambda: run_now(known_schedules()[0], timezone.now()),
}


@pytest.mark.parametrize("name", OF_SCHEDULES)
def test_no_function_of_schedules_locks_backwards(world: World, name: str) -> None:
    for schedule in ("often", "seldom"):
        schedule_task(add, "* * * * *", name=schedule, args=[1, 2])
    Beat().pass_once(timezone.now())
    recorder = recorded(OF_SCHEDULES[name])
    assert recorder.locked or name == "run_now"
    assert recorder.backwards == []


FEW = timedelta(seconds=15)


def in_an_hour() -> Any:
    return timezone.now() + timedelta(minutes=50)


def withhold_all(world: World) -> None:
    pause(None)
    withhold(world.refs)


def acted(world: World, act: Act) -> list[Slice]:
    row = begin(Search(), act, by="ann", expected=0, until=None, now=timezone.now())
    row = take(row.pk, timezone.now()) or row
    return list(
        slices(Search(), act, now=timezone.now(), until=world.late, record=lambda made: note_act(row, made, world.late))
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_store_function_locks_backwards(world: World, name: str) -> None:
    recorder = recorded(lambda: FUNCTIONS[name](world))
    assert recorder.locked, "it locks something, or there is nothing to see"
    assert recorder.backwards == []


@dataclass
class Meanwhile:
    """Does something once, before a statement that holds the text."""

    text: str
    happens: Callable[[], Any]
    has_happened: bool = False

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if self.text in sql and not self.has_happened:
            self.has_happened = True
            in_threads([self.happens])
        return execute(sql, params, many, context)


LOCKED_EXECUTIONS = '"finished_at" IS NULL AND "i3tasks_taskexecution"."id" IN'


@pytest.mark.parametrize("outcome", [Released(), failure(delay=0), Success(1)], ids=["hand-back", "retry", "next step"])
def test_cancelling_beside_what_goes_on_locks_in_order(world: World, outcome: Any) -> None:
    """The worker was quicker: there is a new try, or a new step, once its execution is about to be locked."""
    recorder = Recorder(known_rows())

    def settle_all() -> None:
        settle([says(claimed, outcome) for claimed in reversed(world.running)])
        recorder.known |= known_rows()

    meanwhile = Meanwhile(LOCKED_EXECUTIONS, settle_all)
    with connection.execute_wrapper(meanwhile), connection.execute_wrapper(recorder):
        cancel_group(world.outer.pk)
    assert meanwhile.has_happened
    assert recorder.backwards == []
    assert not TaskExecutionTry.objects.filter(
        task_execution__in=TaskExecution.objects.exclude(
            pk__in=[t.task_execution_id for t in (*world.plain, *world.deferred)]
        ),
        is_completed=False,
    ).exists()
    assert set(TaskGroup.objects.values_list("status", flat=True)) <= {TaskGroup.STATUS_FAILED, "success"}


@pytest.mark.parametrize("at", range(3))
def test_adding_a_step_anywhere_along_a_chain_locks_in_order(at: int) -> None:
    """Through a call, a group and a call, each of which may have ended."""
    handle = chain(note.s("first"), group(note.s("member"), note.s("other")), note.s("after")).delay()
    for _ in range(at):
        waiting = TaskExecutionTry.objects.filter(is_completed=False).select_related("task_execution")
        settle([says(claimed, Success(1)) for claimed in lease(*waiting)])
    start = TaskExecution.objects.earliest("pk")
    recorder = recorded(lambda: append_step(start, note.as_step("more"), now=timezone.now()))
    assert len(max(recorder.held.values(), key=len)) == 1 + at
    assert recorder.backwards == []
    assert handle.task_uuid == start.uuid


def test_a_lock_that_runs_backwards_is_seen(world: World) -> None:
    def backwards() -> None:
        with atomic():
            list(locked(rows(TaskGroup), wait=True))
            list(locked(rows(TaskExecutionTry), wait=True))

    def descending() -> None:
        with atomic():
            for task_try in reversed(world.plain):
                locked(rows(TaskExecutionTry).filter(pk=task_try.pk), wait=True).get()

    assert len(recorded(backwards).backwards) == 1
    assert len(recorded(descending).backwards) == 2

"""On PostgreSQL the store has two forms: SQL with arrays for plain requests, and the ORM's form for the rest.

Whatever is in the tables, both answer alike and leave the same rows behind.
"""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any
from unittest import mock
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from i3tasks.core.clock import SYSTEM_CLOCK
from i3tasks.core.outcome import Outcome, Released, Success
from i3tasks.models import ExecutionOutcome, QueuePause, TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup
from i3tasks.store.audit import audit
from i3tasks.store.claims import claim
from i3tasks.store.database import DATABASE_TIME
from i3tasks.store.delivering import Item
from i3tasks.store.dispatching import confirm_published, take_due
from i3tasks.store.enqueue import NewExecution, insert
from i3tasks.store.fallback import WaitingRequest, take_waiting
from i3tasks.store.leases import renew
from i3tasks.store.operations import CLAIM, CONFIRM, SETTLE, Operation
from i3tasks.store.postgres.settling import settle_plain
from i3tasks.store.postgres.statements import Question
from i3tasks.store.requests import Claimed, ClaimRequest, Settled, Settlement, TryRef
from i3tasks.store.settle import settle
from i3tasks.store.states import LOST_CLASS
from i3tasks.store.writer import Writer
from tests.store.helpers import failure, in_threads, lease, open_transaction, request
from tests.store.test_claims import Heartbeat
from tests.support.exploring import examples
from tests.support.rigs import until

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

NOW = timezone.now()
CHOOSERS = ("claims", "leases", "settle", "dispatching", "priority", "plain_answers", "taking")
STEP = {"module_name": "m", "func_name": "next", "args": [], "kwargs": {}}
VALUES: list[Any] = [None, 0, "", "text \u2028 \\u0041 {,} \"'", [], {"a": [1.5, None, {"b": "é"}]}, 10**40, True]
choices = st.integers(0, 2**32).map(random.Random)  # drawn bit by bit, most tries would be alike
many = settings(max_examples=examples(20))


@dataclass
class World:
    """Tries in all states, committed, and the locks of a stranger on some of them."""

    choose: random.Random
    tries: list[TaskExecutionTry] = field(default_factory=list)
    locks: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, choose: random.Random, leased: float = 0.4, members: float = 0.2) -> "World":
        for model in (TaskExecution, TaskGroup, QueuePause):
            model.objects.all().delete()
        world = cls(choose)
        for name in ("heavy", "default"):
            if choose.random() < 0.15:
                QueuePause.objects.create(queue_name=name, paused_at=NOW)
        groups = [TaskGroup.objects.create(total_count=99) for _ in range(2)]
        world.tries = insert([world._call(groups, members) for _ in range(choose.randint(1, 8))], now=NOW)
        for task_try in world.tries:
            world._age(task_try, leased)
        for group in groups:
            world._go_on(group)
        return world

    def _go_on(self, group: TaskGroup) -> None:
        """Let some of its members have ended, others that are not here run still, or let it be over."""
        choose = self.choose
        group.completed_count, group.failed_count = choose.choice([0, 0, 1, 7]), choose.choice([0, 0, 0, 2])
        others = choose.choice([0, 0, 1, 50])
        group.total_count = group.completed_count + group.failed_count + group.members.count() + others
        group.wait_for_all = choose.random() < 0.5
        group.status = choose.choice(
            [TaskGroup.STATUS_PENDING] * 6 + [TaskGroup.STATUS_SUCCESS, TaskGroup.STATUS_FAILED]
        )
        group.save()
        if choose.random() < 0.1:
            self.locks.append(f"SELECT 1 FROM {TaskGroup._meta.db_table} WHERE id = {group.pk} FOR UPDATE")

    def _call(self, groups: Sequence[TaskGroup], members: float) -> NewExecution:
        choose = self.choose
        call = NewExecution("m", "f", [choose.choice(VALUES)], {"x": choose.choice(VALUES)})
        if choose.random() < members:
            group = choose.choice(groups)
            call = replace(call, task_group_id=group.pk, group_index=choose.randint(0, 9))
        if choose.random() < 0.2:
            call = replace(call, chain=[STEP])
        if choose.random() < 0.2:
            call = replace(call, options={"max_retries": 1})
        if choose.random() < 0.2:
            call = replace(call, run_after=NOW + timedelta(seconds=choose.choice([1, 60])))
        queue_name = choose.choice([None, None, "heavy", "light"])
        return replace(call, queue_name=queue_name, priority=choose.choice([0, 0, 0, -5, 1, 9]))

    def _age(self, task_try: TaskExecutionTry, leased: float) -> None:
        choose, execution = self.choose, task_try.task_execution
        mood = choose.random()
        if mood < leased:
            self._lease(task_try)
        if mood < leased * 0.2:
            task_try.is_completed, task_try.is_success, task_try.finished_at = True, True, NOW
            task_try.lease_until = None
        if choose.random() < 0.2:
            self._make_suspect(task_try)
        task_try.publish_count = choose.choice([0, 1, 1, 3])
        if choose.random() < 0.2:
            execution.cancel_requested_at = NOW
        if choose.random() < 0.1:
            TaskExecutionResult.objects.create(task_execution_try=task_try, result="an old worker's", text_of="date")
        task_try.save()
        execution.save()
        if choose.random() < 0.1:
            row = choose.choice([task_try, execution])
            self.locks.append(f"SELECT 1 FROM {row._meta.db_table} WHERE id = {row.pk} FOR UPDATE")

    def _make_suspect(self, task_try: TaskExecutionTry) -> None:
        """Let it be the third one, after two that died with their workers; or with a worker that lives."""
        task_try.try_number = 3
        task_try.save()
        ended = {"is_completed": True, "started_at": NOW, "finished_at": NOW}
        for number in (1, 2):
            lost = {"error_class": self.choose.choice([LOST_CLASS, LOST_CLASS, "m.Error"])}
            TaskExecutionTry.objects.create(task_execution=task_try.task_execution, try_number=number, **ended, **lost)

    def _lease(self, task_try: TaskExecutionTry) -> None:
        task_try.claim_token, task_try.worker_id = SYSTEM_CLOCK.new_uuid7(), self.choose.choice(["w1", "w2"])
        task_try.started_at = NOW - timedelta(seconds=5)
        task_try.lease_until = NOW + timedelta(seconds=self.choose.choice([-1, 25]))
        task_try.dispatch_at = None

    def some(self) -> list[TaskExecutionTry]:
        """Tries to ask for: any, in any order, some twice."""
        if self.choose.random() < 0.7:
            return self.choose.sample(self.tries, len(self.tries))
        return self.choose.choices(self.tries, k=self.choose.randint(1, 10))


def rows() -> list[Any]:
    """What all tables hold. New rows go by what they belong to: their ids are never the same."""
    first = TaskExecution.objects.filter(previous=None, previous_group=None)
    following = TaskExecution.objects.exclude(pk__in=first)
    tries = TaskExecutionTry.objects.filter(task_execution__in=first)
    return [
        list(first.order_by("pk").values()),
        [{**row, "id": None} for row in tries.order_by("task_execution_id", "try_number").values()],
        [{**row, "id": None} for row in TaskExecutionResult.objects.order_by("task_execution_try").values()],
        list(TaskGroup.objects.order_by("pk").values()),
        list(
            following.order_by("previous_id", "previous_group_id").values_list(
                "previous_id", "previous_group_id", "task_name", "queue_name"
            )
        ),
    ]


@contextmanager
def orm_only() -> Iterator[None]:
    with ExitStack() as stack:
        for module in CHOOSERS:
            stack.enter_context(mock.patch(f"i3tasks.store.{module}.are_known", return_value=False))
        yield


def tried(function: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """The answers, and the rows after it; then it is rolled back."""
    with mock.patch("django.utils.timezone.now", return_value=NOW), transaction.atomic():
        answers = function()
        after = rows()
        transaction.set_rollback(True)
    return answers, after


def in_both_forms(world: World, function: Callable[[], Any]) -> Any:
    """The answers, which must be the same by both."""
    with open_transaction(*world.locks):
        answers, after = tried(function)
        with orm_only():
            answers_of_orm, after_orm = tried(function)
    assert answers == answers_of_orm
    assert after == after_orm
    return answers


def claims(world: World) -> list[ClaimRequest]:
    choose = world.choose

    def asked(task_try: TaskExecutionTry) -> ClaimRequest:
        changes: dict[str, Any] = {"worker_id": choose.choice(["w1", "w1", "w2 \"'{}\\"])}
        changes["queues"] = choose.choice([None, frozenset([None]), frozenset(["heavy", None]), frozenset(["light"])])
        changes["heeds_pauses"] = choose.random() < 0.8
        if choose.random() < 0.1 and task_try.claim_token:
            changes["token"] = task_try.claim_token
        if choose.random() < 0.1:
            changes["execution_id"] = choose.choice(world.tries).task_execution_id
        if choose.random() < 0.1:
            changes["try_id"] = 10**12
        if choose.random() < 0.2:
            changes["lease_seconds"] = 12.5
        changes["is_ticket"] = choose.random() < 0.5
        return request(task_try, **changes)

    some = world.some()
    return [asked(task_try) for task_try in some[: choose.choice([1, 2, len(some)])]]


@given(choices)
@many
def test_claims(choose: random.Random) -> None:
    world = World.of(choose)
    requests = claims(world)
    moment = NOW + timedelta(seconds=choose.choice([0, 1, 30]))

    def claimed() -> Any:
        for asked in requests:
            asked.taken.clear()
        return claim(requests, now=moment)

    in_both_forms(world, claimed)


def outcome(choose: random.Random) -> Outcome:
    return choose.choice(
        [
            Success(choose.choice(VALUES)),
            Success(choose.choice(VALUES)),
            Success("text", text_of="Decimal"),
            failure(),
            failure(delay=choose.choice([0, 3])),
            Released(timedelta(seconds=choose.choice([0, 4]))),
        ]
    )


@given(choices)
@many
def test_settlements(choose: random.Random) -> None:
    world = World.of(choose, leased=0.9)

    def settlement(task_try: TaskExecutionTry) -> Settlement:
        token: UUID = task_try.claim_token or SYSTEM_CLOCK.new_uuid7()
        if choose.random() < 0.1:
            token = SYSTEM_CLOCK.new_uuid7()
        gone = choose.random() < 0.1
        return Settlement(10**12 if gone else task_try.pk, task_try.task_execution_id, token, outcome(choose))

    settlements = [settlement(task_try) for task_try in world.some()]

    def settled() -> list[Any]:
        return [
            (answer, answer.at, answer.is_cancelled, len(answer.due)) if isinstance(answer, Settled) else answer
            for answer in settle(settlements, now=NOW)
        ]

    def without_ids(answers: Sequence[Any]) -> Sequence[Any]:
        return [
            (replace(answer[0], due=(), next_try=None), *answer[1:]) if isinstance(answer, tuple) else answer
            for answer in answers
        ]

    in_both_forms(world, lambda: without_ids(settled()))


@given(choices)
@many
def test_heartbeats(choose: random.Random) -> None:
    world = World.of(choose)
    heartbeat = Heartbeat()
    for task_try in world.some():
        heartbeat.leases[task_try.pk] = task_try.claim_token or SYSTEM_CLOCK.new_uuid7()
        if choose.random() < 0.2:
            heartbeat.leases[choose.choice([task_try.pk, 10**12])] = SYSTEM_CLOCK.new_uuid7()
    [answer] = in_both_forms(world, lambda: [(found, found.renewed) for found in renew([heartbeat], now=NOW)])
    assert answer[1] <= heartbeat.leases.keys()


@given(choices)
@many
def test_confirmations(choose: random.Random) -> None:
    world = World.of(choose)
    for task_try in world.tries:
        TaskExecutionTry.objects.filter(pk=task_try.pk).update(publish_count=choose.choice([0, 1, 4, 5, 30]))

    def ref(task_try: TaskExecutionTry) -> TryRef:
        as_read = task_try.dispatch_at or NOW
        changed = as_read + timedelta(microseconds=choose.choice([0, 0, 0, 1]))
        return TryRef(task_try.pk, task_try.task_execution_id, "m", "f", None, changed)

    refs = list({task_try.pk: ref(task_try) for task_try in world.some()}.values())
    in_both_forms(world, lambda: confirm_published(refs, now=NOW))


@given(choices)
@many
def test_takings(choose: random.Random) -> None:
    world = World.of(choose, leased=0.2)
    for task_try in world.tries:
        TaskExecutionTry.objects.filter(pk=task_try.pk).update(publish_count=choose.choice([0, 1, 4]))
    moment = NOW + timedelta(seconds=choose.choice([1, 40, 90_000]))
    queues = choose.choice([("default",), ("heavy", "default"), ("light",), ()])
    published = choose.choice([None, timedelta(0), timedelta(seconds=15)])
    room, threads = choose.choice([1, 3, 100]), choose.choice([0, 100])
    request = WaitingRequest(
        queues, published, timedelta(0), room, threads, choose.choice([None, timedelta(seconds=10)])
    )

    def taken() -> Any:
        return [astuple(ref) for refs in take_waiting([request], now=moment) for ref in refs]

    in_both_forms(world, taken)
    in_both_forms(world, lambda: [astuple(ref) for ref in take_due(room, now=moment)])


@given(choices)
@many
def test_a_batch_of_the_writer(choose: random.Random) -> None:
    """In one round trip and a transaction of the rest, or all in the ORM's form: no try is asked for in two ways."""
    world = World.of(choose, leased=choose.choice([0.5, 0.9]), members=choose.choice([0.2, 0.8]))
    asked: list[tuple[Operation[Any, Any], Any]] = []
    for task_try in world.tries:
        ref = TryRef(task_try.pk, task_try.task_execution_id, "m", "f", None, task_try.dispatch_at or NOW)
        told = Settlement(
            task_try.pk, task_try.task_execution_id, task_try.claim_token or SYSTEM_CLOCK.new_uuid7(), outcome(choose)
        )
        is_ticket = choose.random() < 0.5
        claims = [(CLAIM, request(task_try, is_ticket=is_ticket))] * choose.choice([1, 1, 2])
        asked += [(SETTLE, told)] if task_try.claim_token else choose.choice([claims, [(CONFIRM, ref)]])
    choose.shuffle(asked)
    in_both_forms(world, lambda: by_the_writer(asked))


GROUPS = [
    (total, completed, failed, status)
    for total, completed, failed in [(9, 0, 0), (4, 1, 0), (3, 0, 0), (5, 1, 1), (6, 1, 1)]
    for status in (TaskGroup.STATUS_PENDING, TaskGroup.STATUS_SUCCESS, TaskGroup.STATUS_FAILED)
]


@pytest.mark.parametrize(("total", "completed", "failed", "status"), GROUPS)
@pytest.mark.parametrize("wait_for_all", [False, True])
@pytest.mark.parametrize("ending", [1, 2, 3])
@pytest.mark.parametrize("then", ["", "f"])
def test_members_are_counted_in_their_group(
    total: int, completed: int, failed: int, status: str, wait_for_all: bool, ending: int, then: str
) -> None:
    counts = {"total_count": total, "completed_count": completed, "failed_count": failed}
    callback = {"callback_task_path": "m", "callback_task_name": then}
    group = TaskGroup.objects.create(**counts, **callback, status=status, wait_for_all=wait_for_all)
    other = TaskGroup.objects.create(total_count=9)
    calls = [NewExecution("m", "f", [], {}, task_group_id=group.pk, group_index=number) for number in range(3)]
    beside = [NewExecution("m", "f", [], {}), NewExecution("m", "f", [], {}, task_group_id=other.pk, group_index=0)]
    world = World(random.Random(0), insert([*calls, *beside], now=NOW))
    asked = []
    for task_try in (*world.tries[:ending], *world.tries[3:]):
        world._lease(task_try)
        task_try.save()
        told = Settlement(task_try.pk, task_try.task_execution_id, task_try.claim_token, Success(1))
        asked.append((SETTLE, told))
    in_both_forms(world, lambda: by_the_writer(asked))


def test_a_group_that_another_worker_has_counted_in_since_the_statement_began() -> None:
    group = TaskGroup.objects.create(total_count=2)
    calls = [NewExecution("m", "f", [], {}, task_group_id=group.pk, group_index=number) for number in range(2)]
    slow, quick = [_ending(claimed) for claimed in lease(*insert(calls, now=NOW))]
    gate = "pg_advisory_xact_lock(7)"
    waits = slow.statement.replace("FROM members m", f"FROM (SELECT m.*, {gate} FROM members m) m")
    assert waits != slow.statement
    is_shut = threading.Event()

    def end_slowly() -> None:
        assert is_shut.wait(20)
        slow._replace(statement=waits).ask()

    def end_meanwhile() -> None:
        with open_transaction(f"SELECT {gate}"):
            is_shut.set()
            until(_waits_at_the_gate)
            assert len(quick.ask()) == 1
            group.refresh_from_db()
            assert (group.status, group.completed_count) == (TaskGroup.STATUS_PENDING, 1)

    in_threads([end_slowly, end_meanwhile])
    group.refresh_from_db()
    assert (group.status, group.completed_count) == (TaskGroup.STATUS_SUCCESS, 2)
    assert audit() == []


def _waits_at_the_gate() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        return bool(cursor.fetchone()[0])


def _ending(claimed: Claimed) -> Question[Any]:
    told = Settlement(claimed.try_id, claimed.execution_id, claimed.token, Success(1))
    question = settle_plain([told], DATABASE_TIME)
    assert question is not None
    return question


def by_the_writer(asked: Sequence[tuple[Operation[Any, Any], Any]]) -> list[Any]:
    """The writer's answers to a batch, the plain ones of which are asked together."""
    writer = Writer(lambda: replace(SYSTEM_CLOCK, database_now=lambda: NOW))
    answers: dict[int, Any] = {}
    items = []
    for number, (operation, each) in enumerate(asked):
        if operation is CLAIM:
            each.taken.clear()
        items.append(Item(operation, each, then=partial(answers.__setitem__, number)))
    with mock.patch("i3tasks.store.plain_answers.can_ask_together", return_value=True):
        left, by_operation, failure = writer._answer_plain(items)
    assert failure is None
    for item, answer in writer._commit(left, by_operation):
        assert item.then is not None
        item.then(answer)
    return [
        (replace(answer, due=(), next_try=None), answer.at, len(answer.due)) if isinstance(answer, Settled) else answer
        for answer in (answers[number] for number in range(len(asked)))
    ]


def test_a_plain_batch_is_claimed_and_settled_without_the_orm() -> None:
    tries = insert([NewExecution("m", "f", [number], {}) for number in range(5)], now=NOW)
    with mock.patch("i3tasks.store.claims._claim", None), mock.patch("i3tasks.store.settle._settle", None):
        answers = claim([request(task_try) for task_try in tries])
        leases = [answer for answer in answers if isinstance(answer, Claimed)]
        assert [lease.args for lease in leases] == [[number] for number in range(5)]
        settlements = [Settlement(won.try_id, won.execution_id, won.token, Success(won.args)) for won in leases]
        assert settle(settlements) == [Settled()] * 5
    assert list(TaskExecutionResult.objects.order_by("task_execution_try").values_list("result", flat=True)) == [
        [number] for number in range(5)
    ]
    assert TaskExecution.objects.filter(outcome=ExecutionOutcome.SUCCESS).count() == 5

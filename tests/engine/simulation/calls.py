"""What callers ask for, and what they do to it afterwards; each noted for the checks at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from unittest import mock

from django.core.exceptions import ObjectDoesNotExist
from django.db import IntegrityError, connection, transaction

from i3tasks import RESULT, RetryPolicy, chain, group
from i3tasks.calls.handles import ChainHandle
from i3tasks.core.clock import current_clock
from i3tasks.engine.launch import launch
from i3tasks.exceptions import ExecutionNotFound
from i3tasks.models import TaskExecution, TaskExecutionTry, TaskGroup
from i3tasks.store import retention
from i3tasks.store.ages import Ages
from i3tasks.store.cancel import cancel, retry_failed

from .bodies import (
    MANY,
    abandon,
    bystand,
    fail,
    fail_together,
    hurry,
    leave,
    ledger,
    lone,
    mourn,
    snooze,
    snooze_together,
    stumble,
    take_along,
    work,
)
from .broker import DEADLY, Broker
from .process import Process

Asked = ChainHandle[Any] | TaskGroup
GONE = (ExecutionNotFound, ObjectDoesNotExist, IntegrityError)
"""What a caller may be told of rows that retention has deleted."""
LARGE = 5
"""Members that no other group has so many of."""
NEVER = "never"
"""The argument of calls that are rolled back."""


@dataclass(frozen=True)
class Cancelled:
    """An execution that was called off while it was under way, as it was at that instant."""

    execution_id: int
    was_waiting: bool  # no worker ran it
    begun: int
    tries: int
    at: datetime


def ends_of_executions() -> dict[int, Any]:
    """How and when those that have ended did. Read without the ORM, which takes ten times as long."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, outcome, finished_at FROM i3tasks_taskexecution WHERE outcome IS NOT NULL")
        return {pk: end for pk, *end in cursor.fetchall()}


def _unfinished() -> list[int]:
    return list(TaskExecution.objects.filter(outcome__isnull=True).values_list("pk", flat=True))


class _TurnedBack(Exception):
    """The caller's transaction is not to be."""


class Calls:
    """All callers. Each calls from a process that lives, if there is one; what it publishes dies with that."""

    def __init__(self, broker: Broker) -> None:
        self.chance = broker.timeline.chance
        self.planned = 0  # callers still to come
        self.cancelled: list[Cancelled] = []
        self.put_off: set[int] = set()
        self.alone_since: dict[int, datetime] = {}  # when unique ones were enqueued, by the database's clock
        self.ended: dict[int, Any] = {}  # how executions had ended at some instant
        self.appended: list[str] = []
        self._broker = broker
        self._timeline = broker.timeline
        self._is_deadly = any(getattr(broker.faults, name) for name in DEADLY)
        self._asked: list[Asked] = []
        self._tags = (f"tag {number}" for number in count())
        self._held: dict[str, tuple[int, datetime]] = {}  # idempotency key -> execution, until
        self._has_killer = False
        self._is_about_killer = not self._is_deadly and self.chance.random() < 0.4
        self.is_cleaned = not self._is_about_killer and self.chance.random() < 0.15
        """Whether retention deletes what has ended, at once, and what has failed is retried. No books are kept then."""

    @property
    def is_calm(self) -> bool:
        """No process has died or been late, and none will."""
        return not self._is_deadly and not self._has_killer

    def plan(self, call: Callable[[], Any], seconds: float) -> None:
        """Let a caller call then."""

        def act() -> None:
            self.planned -= 1
            if self._broker.receivers:
                Process.current = self.chance.choice(self._broker.receivers)
            with suppress(*GONE) if self.is_cleaned else nullcontext():
                call()

        self.planned += 1
        self._timeline.after(seconds, act)

    def ask(self) -> None:
        """Enqueue something, and perhaps meddle with it later."""
        wants_killer = self._is_about_killer and not self._has_killer
        asked = self._killer_among_bystanders() if wants_killer else self.chance.choice(WORKFLOWS)(self)
        if asked is not None:
            self._asked.append(asked)
            if self.chance.random() < 0.5:
                self._plan_soon(self.meddle, 8)

    def meddle(self) -> None:
        """Do something to what was asked for, in whatever state it is now."""
        if self._asked:
            self.chance.choice(MEDDLING)(self, self.chance.choice(self._asked))

    def retry(self) -> None:
        """Give some of what has failed or was cancelled another try; what is unique may have a successor by then."""
        ended = (
            TaskExecution.objects.filter(outcome__in=["failed", "cancelled"]).exclude(task_name="lone").order_by("pk")
        )
        for pk in ended.values_list("pk", flat=True):
            if self.chance.random() < 0.5:
                launch(retry_failed([pk], now=current_clock().now()).tries)

    def clean(self) -> None:
        """Delete all that has ended. Between a look at what is old and its lock, some of it may be retried."""
        delete_together = retention._delete_together

        def retry_before(*args: Any) -> int:
            self.retry()
            unfinished = set(_unfinished())
            deleted = delete_together(*args)
            assert unfinished <= set(_unfinished()), "retention deleted what was not over"
            return deleted

        with mock.patch.object(retention, "_delete_together", retry_before):
            now = self._timeline.now + timedelta(seconds=1)
            retention.clean(Ages(failed=timedelta(), other=timedelta()), 3, now=now)

    def note_ends(self) -> None:
        """What has ended stays as it is: this keeps how, for the check."""
        for pk, end in ends_of_executions().items():
            self.ended.setdefault(pk, end)

    def _plan_soon(self, call: Callable[[], Any], longest: float) -> None:
        self.plan(call, self.chance.random() ** 2 * longest)

    # ------------------------------------------------------------------------------------------------ plain calls

    def _one(self) -> Asked:
        return work.delay("one")

    def _ranked(self) -> Asked:
        """Some calls that overtake others."""
        ranked = work.using(priority=self.chance.choice([-9, 0, 0, 5, 9]))
        for _ in range(self.chance.randint(0, 3)):
            self._plan_soon(
                lambda: ranked.using(priority=self.chance.choice([-9, 0, 5, 9])).delay("ranked") and None, 8
            )
        return ranked.delay("ranked")

    def _stumbling(self) -> Asked:
        return stumble.delay(self.chance.randint(1, 3))

    def _stumbling_without_a_wait(self) -> Asked:
        at_once = RetryPolicy(max_retries=MANY, base_seconds=0)
        return stumble.using(retry=at_once).delay(self.chance.randint(1, 3))

    def _snoozing(self) -> Asked:
        return snooze.delay(self.chance.randint(1, 3))

    def _leaving_things_behind(self) -> Asked:
        """Among neighbours, which must not notice."""
        for _ in range(self.chance.randint(0, 2)):
            work.delay("beside")
        return self.chance.choice([leave, abandon]).delay(self.chance.randint(1, 3))

    def _failing_in_groups_of_errors(self) -> Asked:
        if self.chance.random() < 0.5:
            return snooze_together.delay(self.chance.randint(1, 3))
        return fail_together.using(on_failure=mourn.s(next(self._tags))).delay()

    def _hurrying(self) -> Asked:
        return hurry.delay()

    def _failing(self) -> Asked:
        return fail.using(on_failure=mourn.s(next(self._tags))).delay()

    def _deferred(self) -> Asked:
        return work.using(run_after=self.chance.uniform(1, 20)).delay("later")

    def _put_off_at_once(self) -> Asked:
        """Its message is on its way already."""
        handle = work.delay("put off")
        handle.reschedule(self._timeline.now + timedelta(seconds=self.chance.uniform(0, 10)))
        return handle

    def _rolled_back(self) -> None:
        with suppress(_TurnedBack), transaction.atomic():
            work.using(idempotency_key="never").delay(NEVER)
            lone.delay(-1)
            group(work.s(NEVER)).then(work.s(NEVER)).delay()
            raise _TurnedBack

    # ------------------------------------------------------------------------------------------------- one for a key

    def _keyed(self) -> Asked:
        """Several calls with few keys, which are held for a while, whatever becomes of the execution."""
        key = self.chance.choice("ab")
        seconds = self.chance.uniform(1, 15)
        handle = work.using(idempotency_key=key, idempotency_period=timedelta(seconds=seconds)).delay(key)
        now, execution_id = current_clock().now(), handle.task_execution_id  # the clock of the one who calls
        assert execution_id is not None
        holder, until = self._held.get(key, (0, now))
        if until > now:
            assert execution_id == holder, f"execution {execution_id} for a key that {holder} holds"
        else:
            assert execution_id != holder, f"{holder} has its key for longer than its period"
            self._held[key] = execution_id, now + timedelta(seconds=seconds)
        self._again(self._keyed)
        return handle

    def _alone(self) -> Asked:
        """Several calls of few numbers, each of which is unique while it is unfinished."""
        number = self.chance.randint(1, 2)
        same = TaskExecution.objects.filter(task_name="lone", task_args=[number], outcome__isnull=True)
        unfinished = list(same.values_list("pk", flat=True))
        handle = lone.delay(number)
        if unfinished:
            assert unfinished == [handle.task_execution_id], f"{handle.task_execution_id} beside {unfinished}"
        else:
            assert list(same.values_list("pk", flat=True)) == [handle.task_execution_id], "nothing new"
            self.alone_since[handle.task_execution_id] = self._timeline.now
        self._again(self._alone)
        return handle

    def _again(self, call: Callable[[], Any]) -> None:
        if self.chance.random() < 0.6:
            self._plan_soon(call, 15)

    # -------------------------------------------------------------------------------------------- chains and groups

    def _chained(self) -> Asked:
        return chain(work.s(1), stumble.s(1), work.s(RESULT)).delay()

    def _grouped(self) -> Asked:
        members = [work.s(number) for number in range(self.chance.randint(1, 4))]
        return group(*members).then(work.s(RESULT)).delay()

    def _group_that_fails(self) -> Asked:
        members = group(work.s(1), fail.s(), wait_for_all=self.chance.random() < 0.5)
        return members.then(work.s(RESULT)).otherwise(mourn.s(next(self._tags))).delay()

    def _group_with_a_deadline(self) -> Asked:
        members = [
            snooze.s(self.chance.randint(1, 3)),
            *(work.s(number) for number in range(self.chance.randint(0, 2))),
        ]
        in_time = group(*members, deadline=self.chance.uniform(0.1, 10))
        return in_time.then(work.s(RESULT)).otherwise(mourn.s(next(self._tags))).delay()

    def _group_that_is_closed(self) -> Asked:
        """Its members come one by one, more or fewer than were announced."""
        gathering = TaskGroup.create(work, self.chance.randint(1, 3), args=["gathered"])
        for number in range(self.chance.randint(0, 4)):
            self._plan_soon(lambda number=number: work.delay(number, __i3group__=gathering), 15)  # type: ignore[call-arg,misc]
        self.plan(gathering.close, self.chance.uniform(0, 20))
        return gathering

    def _nested_that_waits_for_all(self) -> Asked:
        inner = group(fail.s(), chain(work.s(1), snooze.s(1)), wait_for_all=True)
        outer = group(inner, chain(work.s(2), fail.s()), work.s(3), wait_for_all=True)
        return chain(work.s(0), outer.otherwise(mourn.s(next(self._tags)))).delay()

    def _joined_by_a_step_of_a_failed_chain(self) -> Asked:
        """The group must not wait for a step that is added before, at or after the failure, and never runs."""
        joined = TaskGroup.create(work, 1, args=["never"])
        handle = fail.delay()
        self._plan_soon(lambda: handle.then(work, "never runs", __i3group__=joined), 15)
        return joined

    def _nested(self) -> Asked:
        return chain(work.s(1), group(chain(work.s(2), work.s(3)), work.s(4)), work.s(RESULT)).delay()

    def _large_group_after_a_step(self) -> Asked:
        """Its members are written in slices."""
        members = group(work.s(number) for number in range(self.chance.randint(LARGE, 2 * LARGE)))
        return chain(work.s("first"), members, work.s(RESULT)).delay()

    # ---------------------------------------------------------------------------------------------------- suspects

    def _killer_among_bystanders(self) -> Asked:
        """A body that takes its process along each time. It ends as failed, and no bystander is used up by it."""
        retries = MANY if self._is_deadly else 2  # a bystander may be taken along twice, until it is a suspect itself
        handle = bystand.using(max_retries=retries).delay()
        if self._has_killer:
            return handle  # a second killer might take it along two more times
        self._has_killer = True
        for _ in range(self.chance.randint(1, 4)):
            bystand.using(max_retries=retries).delay()
        killer = take_along.using(max_retries=self.chance.randint(2, 5), on_failure=mourn.s(next(self._tags)))
        return killer.delay()

    # ------------------------------------------------------------------------------------------------------ meddling

    def _call_off(self, asked: Asked) -> None:
        self._cancelling(asked.cancel)  # type: ignore[union-attr]

    def _call_off_one(self, _: Asked) -> None:
        """As the admin does it: any execution, whatever it is a part of."""
        rows = TaskExecution.objects.order_by("pk").values_list("pk", "finished_at")
        all_ids, unfinished = [pk for pk, _ in rows], [pk for pk, finished_at in rows if finished_at is None]
        some = unfinished if unfinished and self.chance.random() < 0.8 else all_ids
        if some:
            one = self.chance.choice(some)
            self._cancelling(lambda: launch(cancel([one])))

    def _cancelling(self, act: Callable[[], Any]) -> None:
        self.note_ends()
        tries: defaultdict[int, list[bool]] = defaultdict(list)
        rows = TaskExecutionTry.objects.order_by("try_number")
        for pk, token in rows.values_list("task_execution_id", "claim_token"):
            tries[pk].append(token is None)
        asked = TaskExecution.objects.filter(cancel_requested_at__isnull=False).order_by("pk")
        before = set(asked.values_list("pk", flat=True))
        act()
        for pk in asked.values_list("pk", flat=True):
            tries[pk] = tries[pk] or [True]  # a member of a slice, which the cancellation has written
        self.cancelled += [
            Cancelled(pk, tries[pk][-1], ledger.begun_execution[pk], len(tries[pk]), self._timeline.now)
            for pk in asked.values_list("pk", flat=True)
            if pk not in before
        ]
        ended = ends_of_executions()
        for item in self.cancelled:
            if item.at == self._timeline.now:
                assert item.was_waiting == (item.execution_id in ended), (
                    "it ends at once if no worker runs it, and only then"
                )

    def _put_off(self, asked: Asked) -> None:
        if isinstance(asked, ChainHandle) and asked.task_execution_id is not None:
            self.put_off.add(asked.task_execution_id)
            asked.reschedule(self._timeline.now + timedelta(seconds=self.chance.uniform(0, 10)))

    def _append(self, asked: Asked) -> None:
        if isinstance(asked, ChainHandle):
            tag = next(self._tags)
            self.appended.append(tag)
            asked.then(work, tag)


WORKFLOWS: list[Callable[[Calls], Asked | None]] = [
    *(Calls._one, Calls._ranked, Calls._ranked, Calls._stumbling, Calls._stumbling_without_a_wait),
    *(Calls._snoozing, Calls._hurrying, Calls._failing_in_groups_of_errors),
    *(Calls._leaving_things_behind, Calls._leaving_things_behind),
    *(Calls._failing, Calls._deferred, Calls._put_off_at_once, Calls._rolled_back, Calls._keyed, Calls._alone),
    *(Calls._chained, Calls._grouped, Calls._group_that_fails, Calls._group_with_a_deadline),
    *(Calls._nested_that_waits_for_all, Calls._joined_by_a_step_of_a_failed_chain),
    *(Calls._group_that_is_closed, Calls._nested, Calls._killer_among_bystanders, Calls._large_group_after_a_step),
]
MEDDLING: list[Callable[[Calls, Asked], None]] = [
    *(Calls._call_off, Calls._call_off_one, Calls._call_off_one, Calls._put_off, Calls._append),
]

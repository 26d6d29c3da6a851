"""New executions and their first tries, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, overload

from django.db import transaction

from ..conf import get_config
from ..core.steps import Step
from ..exceptions import UnknownQueueError
from ..models import TaskExecutionTry, new_uuids
from ..registry import TaskSpec, find, topic_of
from ..telemetry import emit, wanted
from .database import alias
from .failures import facts_of
from .inserting import insert_rows
from .keys import Key, insert_once
from .lock_timeout import LONGEST_LOCK, attempted, short_locks
from .tables import Table

LONGEST_LOST_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Origin:
    """The place of a step in its workflow. First steps and failure callbacks have none."""

    previous_id: int | None = None
    previous_group_id: int | None = None
    part_of_id: int | None = None


FIRST = Origin()


@dataclass(slots=True)  # not frozen, which would make an instance cost three times as much: a group makes thousands
class NewExecution:
    """A call, ready to be written. Arguments are JSON data."""

    module_name: str
    func_name: str
    args: list[Any]
    kwargs: dict[str, Any]
    queue_name: str | None = None
    run_after: datetime | None = None
    priority: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    chain: Sequence[Step] = ()
    task_group_id: int | None = None
    group_index: int | None = None
    origin: Origin = FIRST
    trace_context: Mapping[str, Any] | None = None
    """The context that travels with the call: see `telemetry.propagation`."""
    key: Key | None = None
    """The key of the call: of all calls with the same key, one is written."""


class Enqueued(Sequence[tuple[TaskExecutionTry, bool]]):
    """For each call its try, and whether it is new. A call whose key is taken has the latest try of another call."""

    def __init__(self, tries: Sequence[TaskExecutionTry], are_new: Sequence[bool] | None = None) -> None:
        self.tries = tries
        self._are_new = are_new

    def __len__(self) -> int:
        return len(self.tries)

    @overload
    def __getitem__(self, place: int) -> tuple[TaskExecutionTry, bool]: ...
    @overload
    def __getitem__(self, place: slice) -> list[tuple[TaskExecutionTry, bool]]: ...
    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[each] for each in range(len(self))[place]]
        return self.tries[place], self.is_new(place)

    def is_new(self, place: int) -> bool:
        return self._are_new is None or self._are_new[place]

    @property
    def new(self) -> Sequence[TaskExecutionTry]:
        """The tries to launch."""
        return self.tries if self._are_new is None else [task_try for task_try, is_new in self if is_new]


def from_step(step: Step, rest: Sequence[Step], origin: Origin = FIRST) -> NewExecution:
    """The call that a step describes, with `rest` to follow it. The task's own `on_success` comes first.

    A step names a task that may be unknown here; then its execution fails, and nothing else.
    """
    module_name, func_name = str(step.get("module_name", "")), str(step.get("func_name", ""))
    spec = find(module_name, func_name)
    own = () if spec is None else spec.options.on_success
    return NewExecution(
        module_name=module_name,
        func_name=func_name,
        args=step.get("args") or [],
        kwargs=step.get("kwargs") or {},
        queue_name=step.get("queue_name") or _queue_of(spec),
        priority=step.get("priority", 0 if spec is None else spec.options.priority),
        options=step.get("options") or {},
        chain=[*own, *rest],
        task_group_id=step.get("task_group_id"),
        group_index=step.get("group_index"),
        origin=origin,
    )


def enqueue(calls: Sequence[NewExecution], *, now: datetime, longest_wait: timedelta = LONGEST_LOCK) -> Enqueued:
    """Write the calls, in the caller's transaction.

    Raises StoreUnavailable, and writes nothing, if another transaction has written one of the keys and does not commit
    within `longest_wait`, or if the two wait for each other. Outside a transaction, that is so of each of a few
    attempts.
    """
    if not any(call.key for call in calls):
        return Enqueued(insert(calls, now=now))
    # In the order of their keys, or two transactions that write the same ones could wait for each other.
    in_order = sorted(range(len(calls)), key=lambda index: "" if (key := calls[index].key) is None else key.text)

    def write() -> dict[int, tuple[TaskExecutionTry, bool]]:
        with short_locks(longest_wait):
            return {index: _enqueue_one(calls[index], now) for index in in_order}

    answers = attempted(write)
    tries, are_new = zip(*(answers[index] for index in range(len(calls))), strict=True)
    return Enqueued(tries, are_new)


def publish_grace() -> timedelta:
    """How long an unconfirmed publish is waited for before the dispatcher publishes the try again."""
    return timedelta(seconds=get_config().settings.publish_grace_seconds)


def wait_for_claim(publish_count: int) -> timedelta:
    """How long a try that had been published so often before waits for its claim, before it is published again."""
    first = timedelta(seconds=get_config().settings.lost_after_seconds)
    return min(first * float(2 ** min(publish_count, 20)), LONGEST_LOST_AFTER)


class Publishing(NamedTuple):
    """The columns of a new try that say whether it is published, and when it is to be published (again)."""

    publish_count: int
    dispatch_at: datetime


def publishing(module_name: str, func_name: str, queue_name: str | None, now: datetime) -> Publishing:
    """Those of a try that is due at once.

    A try of a DatabaseQueue is written as published: workers find it in the database, so that after its commit nothing
    is left to be done. Should its queue get a topic meanwhile, it is published like one whose message was lost.
    """
    config = get_config()
    try:
        has_topic = not config.database_queues or bool(topic_of(module_name, func_name, queue_name, config))
    except UnknownQueueError:
        has_topic = True  # it is reported when it is to be published
    return Publishing(0, now + publish_grace()) if has_topic else Publishing(1, now + wait_for_claim(0))


def _enqueue_one(call: NewExecution, now: datetime) -> tuple[TaskExecutionTry, bool]:
    def insert_it() -> TaskExecutionTry:
        return insert([call], now=now)[0]

    return (insert_it(), True) if call.key is None else insert_once(call.key, insert_it, now=now)


def _queue_of(spec: TaskSpec | None) -> str | None:
    """The queue of a step that names none. A task whose queue is gone from I3TASKS keeps its name, to be reported."""
    if spec is None:
        return get_config().queue(None).name
    try:
        return spec.queue_name()
    except UnknownQueueError:
        return spec.options.queue_name


def insert(calls: Sequence[NewExecution], *, now: datetime) -> Sequence[TaskExecutionTry]:
    """Write an execution and its first try for each call, in few statements: see `inserting`.

    `now` is the caller's clock, which costs no query; a `run_after` that has passed by this clock does not count. See
    `publishing` for the tries that are due at once.
    """
    if not calls:
        return []
    written = insert_rows(_table(calls, now))
    if wanted("execution_enqueued"):
        _report_on_commit(written)
    return written


def _report_on_commit(tries: Iterable[TaskExecutionTry]) -> None:
    def report() -> None:  # a function and not a partial: Django names it when it fails
        for task_try in tries:
            _report(task_try)

    transaction.on_commit(report, using=alias(), robust=True)


def _report(task_try: TaskExecutionTry) -> None:
    due_at = {} if task_try.run_after is None else {"due_at": task_try.run_after}
    emit("execution_enqueued", **facts_of(task_try, task_try.task_execution), **due_at)


def to_come(run_after: datetime | None, now: datetime) -> datetime | None:
    """`run_after` as a row has it: null when it has passed, so that no other clock can find it still to come."""
    return None if run_after is None or run_after <= now else run_after


def _table(calls: Sequence[NewExecution], now: datetime) -> Table:
    """The columns of an execution and its first try for each call."""
    count = len(calls)
    for call in calls:
        if not isinstance(call.priority, int):  # a stored step may hold anything, and SQLite would take it
            raise ValueError(f"priority must be a whole number, not {call.priority!r:.80}")
    run_after = [to_come(call.run_after, now) for call in calls]
    places = [(call.module_name, call.func_name, call.queue_name) for call in calls]
    of_place = {place: publishing(*place, now) for place in set(places)}
    published = [
        of_place[place] if instant is None else Publishing(0, instant)
        for place, instant in zip(places, run_after, strict=True)
    ]
    same = {"created_at": now, "updated_at": now, "try_number": 1, "is_completed": False, "is_success": False}
    columns: dict[str, Sequence[Any]] = {
        "uuid": new_uuids(count),
        "task_path": [call.module_name for call in calls],
        "task_name": [call.func_name for call in calls],
        "task_args": [call.args for call in calls],
        "task_kwargs": [call.kwargs for call in calls],
        "queue_name": [call.queue_name for call in calls],
        "priority": [call.priority for call in calls],
        "options": [dict(call.options) or None for call in calls],
        "chain": [list(call.chain) or None for call in calls],
        "task_group_id": [call.task_group_id for call in calls],
        "group_index": [call.group_index for call in calls],
        "trace_context": [call.trace_context or None for call in calls],
        "previous_id": [call.origin.previous_id for call in calls],
        "previous_group_id": [call.origin.previous_group_id for call in calls],
        "part_of_id": [_part_of(call) for call in calls],
        "run_after": run_after,
        "publish_count": [each.publish_count for each in published],
        "dispatch_at": [each.dispatch_at for each in published],
    }
    return Table.of(columns, same, {"asked_at": now})  # calls wait in the order in which they were given


def _part_of(call: NewExecution) -> int | None:
    """Of a member that is one step long, `task_group` says as much."""
    part_of_id = call.origin.part_of_id
    return None if part_of_id == call.task_group_id else part_of_id

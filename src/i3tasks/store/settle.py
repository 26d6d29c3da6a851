"""How a try ends: one transaction with everything that follows from it.

`settle` is fenced: only the holder of the try's token changes anything. Rows are locked in one order everywhere,
tries, then executions, then groups, each by primary key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import JSONField, Value
from django.db.models.expressions import Combinable

from ..conf import get_config
from ..exceptions import TaskCancelled
from ..models import TaskExecution, TaskExecutionResult, TaskExecutionTry
from ..outcome import ErrorRecord, Failure, Outcome, Released, Success
from ..retry import GiveUp, RetryIn
from .database import atomic, database_time, locked, rows, with_database_time
from .enqueue import ref
from .refs import LOCKED, STALE, Locked, Settled, Settlement, Stale, TryRef
from .workflows import Finished, advance

CANCELLED = Failure(ErrorRecord.of(TaskCancelled()), GiveUp(exhausted=False))
"""How a try ends that was called off and did not run."""


@dataclass(frozen=True, slots=True)
class Ending:
    """A settlement whose fence held, with the locked rows it is about."""

    task_try: TaskExecutionTry
    execution: TaskExecution
    outcome: Outcome
    at: datetime


def settle(
    settlements: Sequence[Settlement], *, now: Combinable | None = None, wait: bool = False
) -> list[Settled | Stale | Locked]:
    """Record how tries ended. Stale: the lease was lost, nothing changed. Locked: ask again later."""
    with atomic():
        tries = _lock_tries(settlements, now, wait)
        executions = lock_executions({item.execution_id for item in settlements if item.try_id in tries}, wait=wait)
        hidden = _existing(item.try_id for item in settlements if item.try_id not in tries)
        answers = [_judge(item, tries, executions, hidden) for item in settlements]
        endings: dict[int, Ending] = {}  # the same settlement twice in a batch counts once
        for item, answer in zip(settlements, answers, strict=True):
            if answer is None:
                ending = _ending(tries[item.try_id], executions[item.execution_id], item.outcome)
                endings.setdefault(item.try_id, ending)
        due = apply([*endings.values()])
        return [
            Settled(tuple(due.get(item.execution_id, ()))) if answer is None else answer
            for item, answer in zip(settlements, answers, strict=True)
        ]


def apply(endings: Sequence[Ending]) -> Mapping[int, Sequence[TryRef]]:
    """Write what `endings` say, inside the caller's transaction. Gives the tries due now, by execution id."""
    if not endings:
        return {}
    by_kind: defaultdict[type[Outcome], list[Ending]] = defaultdict(list)
    for ending in endings:
        by_kind[type(ending.outcome)].append(ending)
    _release(by_kind[Released])
    _succeed(by_kind[Success])
    _fail(by_kind[Failure])
    _keep_results([*by_kind[Success], *by_kind[Failure]])
    due = _retry([ending for ending in by_kind[Failure] if _next_delay(ending) is not None])
    _follow_up([*by_kind[Success], *by_kind[Failure]], due)
    return due


def lock_executions(ids: set[int], *, wait: bool) -> dict[int, TaskExecution]:
    """Lock these executions; those that somebody else has locked are left out, or waited for."""
    if not ids:
        return {}
    queryset = rows(TaskExecution).filter(pk__in=ids).defer("task_args", "task_kwargs", "trace_context")
    return {row.pk: row for row in locked(queryset, wait=wait)}


def _lock_tries(settlements: Sequence[Settlement], now: Combinable | None, wait: bool) -> dict[int, TaskExecutionTry]:
    ids = {item.try_id for item in settlements}
    queryset = with_database_time(rows(TaskExecutionTry).filter(pk__in=ids), now)
    return {task_try.pk: task_try for task_try in locked(queryset, wait=wait)}


def _existing(ids: Iterable[int]) -> dict[int, UUID | None]:
    """Tokens of those tries that are there, though somebody has them locked."""
    missing = list(ids)
    return dict(rows(TaskExecutionTry).filter(pk__in=missing).values_list("pk", "claim_token")) if missing else {}


def _judge(
    item: Settlement,
    tries: Mapping[int, TaskExecutionTry],
    executions: Mapping[int, TaskExecution],
    hidden: Mapping[int, UUID | None],
) -> Settled | Stale | Locked | None:
    """Why there is nothing to write; None when there is."""
    task_try = tries.get(item.try_id)
    if task_try is None:
        return LOCKED if hidden.get(item.try_id) == item.token else STALE
    if task_try.claim_token != item.token:
        return STALE
    if task_try.is_completed:
        return Settled()  # by this very settlement: COMMIT's reply was lost
    return None if item.execution_id in executions else LOCKED


def _ending(task_try: TaskExecutionTry, execution: TaskExecution, outcome: Outcome) -> Ending:
    if isinstance(outcome, Released) and execution.cancel_requested_at is not None:
        outcome = CANCELLED  # nobody would ever claim it again
    return Ending(task_try, execution, outcome, database_time(task_try))


def _release(endings: Iterable[Ending]) -> None:
    """Hand tries back as if they had never been claimed, to be published after the delay."""
    groups: defaultdict[timedelta, list[Ending]] = defaultdict(list)
    for ending in endings:
        assert isinstance(ending.outcome, Released)
        groups[ending.outcome.delay].append(ending)
    for delay, group in groups.items():
        _tries(group).update(
            dispatch_at=group[0].at + delay,
            publish_count=0,  # its message is gone: to the dispatcher it is new, not one that waits in Pub/Sub
            started_at=None,
            lease_until=None,
            claim_token=None,
            worker_id=None,
        )


def _succeed(endings: Sequence[Ending]) -> None:
    if endings:
        at = endings[0].at
        _tries(endings).update(**_terminal(at), is_success=True)
        _executions(endings).update(finished_at=at, outcome=TaskExecution.Outcome.SUCCESS, updated_at=at)


def _fail(endings: Sequence[Ending]) -> None:
    same_error: defaultdict[tuple[str, str], list[Ending]] = defaultdict(list)
    final: defaultdict[str, list[Ending]] = defaultdict(list)
    for ending in endings:
        assert isinstance(ending.outcome, Failure)
        same_error[ending.outcome.error.error_class, ending.outcome.error.traceback].append(ending)
        if _next_delay(ending) is None:
            cancelled = ending.execution.cancel_requested_at is not None
            final[TaskExecution.Outcome.CANCELLED if cancelled else TaskExecution.Outcome.FAILED].append(ending)
    for (error_class, traceback), group in same_error.items():
        _tries(group).update(**_terminal(group[0].at), error_class=error_class, error_traceback=traceback)
    for outcome, group in final.items():
        _executions(group).update(finished_at=group[0].at, outcome=outcome, updated_at=group[0].at)


def _terminal(at: datetime) -> dict[str, Any]:
    # The token stays: it tells a repeated settlement from a stale one. A lost try's is taken away (dispatching.py).
    return {"is_completed": True, "finished_at": at, "lease_until": None, "dispatch_at": None, "updated_at": at}


def _next_delay(ending: Ending) -> timedelta | None:
    """How long until the next try; None when the execution ends here."""
    outcome = ending.outcome
    if not isinstance(outcome, Failure) or ending.execution.cancel_requested_at is not None:
        return None
    return outcome.then.delay if isinstance(outcome.then, RetryIn) else None


def _keep_results(endings: Iterable[Ending]) -> None:
    results = [
        TaskExecutionResult(
            task_execution_try=ending.task_try,
            result=_json(ending.outcome.value if isinstance(ending.outcome, Success) else _message(ending.outcome)),
        )
        for ending in endings
    ]
    # There may be one from a worker of django-i3tasks, which ran the same try at the same time.
    rows(TaskExecutionResult).bulk_create(
        results, update_conflicts=True, unique_fields=["task_execution_try"], update_fields=["result", "updated_at"]
    )


def _json(value: Any) -> Any:
    """None as JSON's null: Django would write SQL's, which the column does not take."""
    return Value(None, JSONField()) if value is None else value


def _message(outcome: Outcome) -> str:
    assert isinstance(outcome, Failure)
    return outcome.error.message


def _follow_up(endings: Iterable[Ending], due: defaultdict[int, list[TryRef]]) -> None:
    """Write what follows from the executions that end here."""
    finished = [
        Finished(
            ending.execution,
            ending.at,
            succeeded=isinstance(ending.outcome, Success),
            result=ending.outcome.value if isinstance(ending.outcome, Success) else None,
        )
        for ending in endings
        if _next_delay(ending) is None
    ]
    if finished:
        ended = {item.execution.pk for item in finished}
        plan = advance(finished)
        for cause, task_try in zip(plan.causes, plan.write(), strict=True):
            # What a group leads to has its cause in all its members: any one that ended here will do.
            due[cause if cause is not None and cause in ended else finished[0].execution.pk].append(ref(task_try))


def _retry(endings: Collection[Ending]) -> defaultdict[int, list[TryRef]]:
    """Write the next tries. Those without a delay are due at once; the others are the dispatcher's."""
    grace = timedelta(seconds=get_config().settings.publish_grace_seconds)
    there = _tries_of({ending.execution.pk for ending in endings})
    tries = rows(TaskExecutionTry).bulk_create(
        TaskExecutionTry(
            task_execution=ending.execution,
            try_number=ending.task_try.try_number + 1,
            run_after=ending.at + delay if delay else None,
            dispatch_at=ending.at + (delay or grace),
        )
        for ending in endings
        if (delay := _next_delay(ending)) is not None
        and (ending.execution.pk, ending.task_try.try_number + 1) not in there
    )
    due: defaultdict[int, list[TryRef]] = defaultdict(list)
    for task_try in tries:
        if task_try.run_after is None:
            due[task_try.task_execution_id].append(ref(task_try))
    return due


def _tries_of(execution_ids: set[int]) -> set[tuple[int, int]]:
    """Numbers of the tries that are there: a worker of django-i3tasks may have written the next one already."""
    if not execution_ids:
        return set()
    tries = rows(TaskExecutionTry).filter(task_execution__in=execution_ids)
    return set(tries.values_list("task_execution_id", "try_number"))


def _tries(endings: Iterable[Ending]) -> Any:
    return rows(TaskExecutionTry).filter(pk__in=[ending.task_try.pk for ending in endings])


def _executions(endings: Iterable[Ending]) -> Any:
    return rows(TaskExecution).filter(pk__in=[ending.execution.pk for ending in endings])

"""The end of a try: one transaction with all its follow-ups.

`settle` is fenced: only the holder of the try's token changes anything. Rows are locked in the order of `locks`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import JSONField, Value

from ..core.deciding import GiveUp, RetryIn
from ..core.outcome import ErrorRecord, Failure, Outcome, Released, Success
from ..core.steps import groups_waited_for
from ..exceptions import TaskCancelled
from ..models import ExecutionOutcome, TaskExecution, TaskExecutionResult, TaskExecutionTry
from .database import DATABASE_TIME, Instant, atomic, database_time, in_transaction, locked, rows, with_database_time
from .enqueue import publishing
from .locks import lock_executions, lock_groups, lock_references
from .postgres.settling import settle_plain
from .postgres.statements import are_known
from .requests import LOCKED, STALE, Locked, NextTry, Settled, Settlement, Stale, TryRef
from .results import of_success
from .workflows import Finished, advance

CANCELLED = Failure(ErrorRecord.of(TaskCancelled()), GiveUp(exhausted=False))
"""The outcome of a try that was cancelled before it ran."""


@dataclass(frozen=True, slots=True)
class TryEnding:
    """A settlement whose fence held, with the locked rows it is about."""

    task_try: TaskExecutionTry
    execution: TaskExecution
    outcome: Outcome
    at: datetime


def settle(
    settlements: Sequence[Settlement], *, now: Instant = DATABASE_TIME, wait: bool = False
) -> list[Settled | Stale | Locked]:
    """Record how tries ended. Stale: the lease was lost, nothing changed. Locked: ask again later."""
    if len(settlements) == 1 and are_known(now):
        # One plain settlement is one statement, which is a transaction by itself, if it is not part of another.
        if plain := _settle_plain(settlements, now, wait, counts=not in_transaction()):
            return [*plain.values()]
        return settle_rest(settlements, now=now, wait=wait)
    with atomic():
        plain = _settle_plain(settlements, now, wait, counts=False) if are_known(now) else {}
        rest = [item for item in settlements if item.try_id not in plain]
        answers = iter(_settle(rest, now, wait) if rest else ())
        return [plain[item.try_id] if item.try_id in plain else next(answers) for item in settlements]


def settle_rest(
    settlements: Sequence[Settlement], *, now: Instant = DATABASE_TIME, wait: bool = False
) -> list[Settled | Stale | Locked]:
    """The same for settlements of which `settle_plain` has left each."""
    with atomic():
        return _settle(settlements, now, wait)


def _settle_plain(
    settlements: Sequence[Settlement], now: Instant, wait: bool, *, counts: bool
) -> Mapping[int, Settled]:
    question = settle_plain(settlements, now, wait=wait, counts=counts)
    return {} if question is None else question.ask()


def _settle(settlements: Sequence[Settlement], now: Instant, wait: bool) -> list[Settled | Stale | Locked]:
    tries = _lock_tries(settlements, now, wait)
    executions = lock_executions({item.execution_id for item in settlements if item.try_id in tries}, wait=wait)
    hidden = _tokens(item.try_id for item in settlements if item.try_id not in tries)
    answers = [_answer_to(item, tries, executions, hidden) for item in settlements]
    endings: dict[int, TryEnding] = {}  # the same settlement twice in a batch counts once
    for item, answer in zip(settlements, answers, strict=True):
        if answer is None:
            if item.travels is not None:
                executions[item.execution_id].trace_context = item.travels  # of what follows; the row keeps its own
            ending = _ending(tries[item.try_id], executions[item.execution_id], item.outcome)
            endings.setdefault(item.try_id, ending)
    blocked = blocked_by_groups([*endings.values()], wait=wait)
    endings = {pk: ending for pk, ending in endings.items() if pk not in blocked}
    # With `wait` the caller's own thread settles one try, and nothing else waits for it.
    due, retries = apply([*endings.values()], sliced=not wait)
    return [
        (LOCKED if item.try_id in blocked else _settled(endings[item.try_id], due, retries))
        if answer is None
        else answer
        for item, answer in zip(settlements, answers, strict=True)
    ]


def blocked_by_groups(endings: Iterable[TryEnding], *, wait: bool) -> set[int]:
    """Lock the groups that these endings concern. Gives the tries whose groups are locked by another transaction."""
    changed = {ending.task_try.pk: _groups_changed_by(ending) for ending in endings}
    referred = {} if wait else {ending.task_try.pk: _groups_referred_to_by(ending) for ending in endings}
    missing = lock_groups({pk for groups in changed.values() for pk in groups}, wait=wait)
    missing |= lock_references({pk for groups in referred.values() for pk in groups})
    return {pk for groups in (changed, referred) for pk, ids in groups.items() if ids & missing}


def apply(
    endings: Sequence[TryEnding], *, sliced: bool = False
) -> tuple[Mapping[int, Sequence[TryRef]], Mapping[int, NextTry]]:
    """Write the endings, inside the caller's transaction. Gives the tries due now, and the retries.

    Both by execution id; a retry without a delay is in both. With `sliced`, of large groups a part.
    """
    if not endings:
        return {}, {}
    by_kind: defaultdict[type[Outcome], list[TryEnding]] = defaultdict(list)
    for ending in endings:
        by_kind[type(ending.outcome)].append(ending)
    _release(by_kind[Released])
    _succeed(by_kind[Success])
    _fail(by_kind[Failure])
    _keep_results([*by_kind[Success], *by_kind[Failure]])
    retries = _retry([ending for ending in by_kind[Failure] if _next_delay(ending) is not None])
    due: defaultdict[int, list[TryRef]] = defaultdict(list)
    for task_try in retries:
        if task_try.run_after is None:
            due[task_try.task_execution_id].append(TryRef.of_new(task_try))
    _follow_up([*by_kind[Success], *by_kind[Failure]], due, sliced)
    return due, {task_try.task_execution_id: NextTry.of(task_try) for task_try in retries}


def _lock_tries(settlements: Sequence[Settlement], now: Instant, wait: bool) -> dict[int, TaskExecutionTry]:
    ids = {item.try_id for item in settlements}
    queryset = with_database_time(rows(TaskExecutionTry).filter(pk__in=ids), now)
    return {task_try.pk: task_try for task_try in locked(queryset, wait=wait)}


def _groups_changed_by(ending: TryEnding) -> set[int]:
    """The groups that count the execution's end, and those that can't succeed any more because of it."""
    if not _is_final(ending):
        return set()
    execution = ending.execution
    own = [] if execution.task_group_id is None else [execution.task_group_id]
    return {*own, *([] if _goes_on(ending) else groups_waited_for(execution.chain))}


def _groups_referred_to_by(ending: TryEnding) -> set[int]:
    """The groups that the execution's next step is a member of, or else the one that is called on its failure."""
    if not _is_final(ending):
        return set()
    execution = ending.execution
    if _goes_on(ending):
        return set(groups_waited_for(execution.chain[:1] if isinstance(execution.chain, list) else None))
    options = execution.options if isinstance(execution.options, dict) else {}
    return set(groups_waited_for([options.get("on_failure")]))


def _is_final(ending: TryEnding) -> bool:
    return not isinstance(ending.outcome, Released) and _next_delay(ending) is None


def _is_cancelled(ending: TryEnding) -> bool:
    return isinstance(ending.outcome, Failure) and ending.execution.cancel_requested_at is not None


def _goes_on(ending: TryEnding) -> bool:
    return isinstance(ending.outcome, Success) and ending.execution.cancel_requested_at is None


def _tokens(ids: Iterable[int]) -> dict[int, UUID | None]:
    """The tokens of those tries that exist, though another transaction has them locked."""
    missing = list(ids)
    return dict(rows(TaskExecutionTry).filter(pk__in=missing).values_list("pk", "claim_token")) if missing else {}


def _answer_to(
    item: Settlement,
    tries: Mapping[int, TaskExecutionTry],
    executions: Mapping[int, TaskExecution],
    hidden: Mapping[int, UUID | None],
) -> Settled | Stale | Locked | None:
    """Answer a settlement that writes nothing; None when there is something to write."""
    task_try = tries.get(item.try_id)
    if task_try is None:
        return LOCKED if hidden.get(item.try_id) == item.token else STALE
    if task_try.claim_token != item.token:
        return STALE
    if task_try.is_completed:
        return Settled(at=task_try.finished_at)  # by this very settlement: COMMIT's reply was lost
    return None if item.execution_id in executions else LOCKED


def _settled(ending: TryEnding, due: Mapping[int, Sequence[TryRef]], retries: Mapping[int, NextTry]) -> Settled:
    execution_id = ending.execution.pk
    return Settled(tuple(due.get(execution_id, ())), ending.at, retries.get(execution_id), _is_cancelled(ending))


def _ending(task_try: TaskExecutionTry, execution: TaskExecution, outcome: Outcome) -> TryEnding:
    if isinstance(outcome, Released) and execution.cancel_requested_at is not None:
        outcome = CANCELLED  # no claim would ever get it again
    return TryEnding(task_try, execution, outcome, database_time(task_try))


def _release(endings: Iterable[TryEnding]) -> None:
    """Hand tries back as if they had never been claimed, to be published after the delay."""
    groups: defaultdict[Released, list[TryEnding]] = defaultdict(list)
    for ending in endings:
        assert isinstance(ending.outcome, Released)
        groups[ending.outcome].append(ending)
    for outcome, group in groups.items():
        again_at = group[0].at + outcome.delay
        _tries(group).update(
            **({"run_after": again_at} if outcome.is_snoozed else {}),
            dispatch_at=again_at,
            publish_count=0,  # its message is gone: to the dispatcher it is new, not one that waits in Pub/Sub
            started_at=None,
            lease_until=None,
            claim_token=None,
            worker_id=None,
        )


def _succeed(endings: Sequence[TryEnding]) -> None:
    if endings:
        at = endings[0].at
        _tries(endings).update(**_terminal(at), is_success=True)
        _executions(endings).update(finished_at=at, outcome=ExecutionOutcome.SUCCESS, updated_at=at)


def _fail(endings: Sequence[TryEnding]) -> None:
    same_error: defaultdict[tuple[str, str], list[TryEnding]] = defaultdict(list)
    final: defaultdict[str, list[TryEnding]] = defaultdict(list)
    for ending in endings:
        assert isinstance(ending.outcome, Failure)
        same_error[ending.outcome.error.error_class, ending.outcome.error.traceback].append(ending)
        if _next_delay(ending) is None:
            final[ExecutionOutcome.CANCELLED if _is_cancelled(ending) else ExecutionOutcome.FAILED].append(ending)
    for (error_class, traceback), group in same_error.items():
        _tries(group).update(**_terminal(group[0].at), error_class=error_class, error_traceback=traceback)
    for outcome, group in final.items():
        _executions(group).update(finished_at=group[0].at, outcome=outcome, updated_at=group[0].at)


def _terminal(at: datetime) -> dict[str, Any]:
    # The token stays: it tells a repeated settlement from a stale one. A lost try's is taken away (dispatching.py).
    return {"is_completed": True, "finished_at": at, "lease_until": None, "dispatch_at": None, "updated_at": at}


def _next_delay(ending: TryEnding) -> timedelta | None:
    """How long until the next try; None when the execution ends here."""
    outcome = ending.outcome
    if not isinstance(outcome, Failure) or ending.execution.cancel_requested_at is not None:
        return None
    return outcome.then.delay if isinstance(outcome.then, RetryIn) else None


def _keep_results(endings: Iterable[TryEnding]) -> None:
    results = [
        TaskExecutionResult(
            task_execution_try=ending.task_try,
            result=_json(ending.outcome.value if isinstance(ending.outcome, Success) else _message(ending.outcome)),
            text_of=ending.outcome.text_of if isinstance(ending.outcome, Success) else None,
        )
        for ending in endings
    ]
    # There may be one from a worker of django-i3tasks, which ran the same try at the same time.
    rows(TaskExecutionResult).bulk_create(
        results,
        update_conflicts=True,
        unique_fields=["task_execution_try"],
        update_fields=["result", "text_of", "updated_at"],
    )


def _json(value: Any) -> Any:
    """None as JSON's null: Django would write SQL's, which the column does not take."""
    return Value(None, JSONField()) if value is None else value


def _message(outcome: Outcome) -> str:
    assert isinstance(outcome, Failure)
    return outcome.error.message


def _follow_up(endings: Iterable[TryEnding], due: defaultdict[int, list[TryRef]], sliced: bool) -> None:
    """Write what follows from the executions that end here."""
    finished = [
        Finished(
            ending.execution,
            ending.at,
            succeeded=isinstance(ending.outcome, Success),
            result=of_success(ending.outcome, ending.execution) if isinstance(ending.outcome, Success) else None,
        )
        for ending in endings
        if _next_delay(ending) is None
    ]
    if finished:
        ended = {item.execution.pk for item in finished}
        plan = advance(finished, sliced=sliced)
        for cause, task_try in zip(plan.causes, plan.write(), strict=True):
            # The follow-ups of a group have their cause in all its members: any one that ended here will do.
            told = cause if cause is not None and cause in ended else finished[0].execution.pk
            due[told].append(TryRef.of_new(task_try))


def _retry(endings: Collection[TryEnding]) -> list[TaskExecutionTry]:
    """Write the next tries. Those without a delay are due at once; the others are the dispatcher's."""
    there = _tries_of({ending.execution.pk for ending in endings})
    return rows(TaskExecutionTry).bulk_create(
        TaskExecutionTry(
            task_execution=ending.execution,
            try_number=ending.task_try.try_number + 1,
            queue_name=ending.execution.queue_name,
            priority=ending.execution.priority,
            **_times_of_retry(ending, delay),
        )
        for ending in endings
        if (delay := _next_delay(ending)) is not None
        and (ending.execution.pk, ending.task_try.try_number + 1) not in there
    )


def _times_of_retry(ending: TryEnding, delay: timedelta) -> dict[str, Any]:
    if delay:
        return {"run_after": ending.at + delay, "dispatch_at": ending.at + delay}
    execution = ending.execution
    return publishing(execution.task_path, execution.task_name, execution.queue_name, ending.at)._asdict()


def _tries_of(execution_ids: set[int]) -> set[tuple[int, int]]:
    """Numbers of the tries that are there: a worker of django-i3tasks may have written the next one already."""
    if not execution_ids:
        return set()
    tries = rows(TaskExecutionTry).filter(task_execution__in=execution_ids)
    return set(tries.values_list("task_execution_id", "try_number"))


def _tries(endings: Iterable[TryEnding]) -> Any:
    return rows(TaskExecutionTry).filter(pk__in=[ending.task_try.pk for ending in endings])


def _executions(endings: Iterable[TryEnding]) -> Any:
    return rows(TaskExecution).filter(pk__in=[ending.execution.pk for ending in endings])

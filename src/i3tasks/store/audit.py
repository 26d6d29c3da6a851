"""The rules that hold for the tables at every instant, each as a query that finds the rows that break it.

The tables are looked through in slices of their keys, so that no statement takes long, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from django.db.models import Count, Exists, F, Max, Min, OuterRef, Q

from ..models import ExecutionOutcome, TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup
from .database import DATABASE_TIME, Instant, Rows, rows
from .groups import stalled_groups
from .states import has_success

EXAMPLES = 5
SLICE = 50_000
"""How many keys a statement looks at."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Rows that break a rule. `examples` are ids of some of them, and `names` say what these are."""

    rule: str
    count: int
    examples: tuple[int, ...]
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.rule}: {self.count} (e.g. {'; '.join(self.names)})"


class Rule(NamedTuple):
    """A rule, as a query for the rows that break it."""

    name: str
    broken: Rows


def audit(*, overdue: timedelta = timedelta(minutes=5), now: Instant = DATABASE_TIME) -> list[Violation]:
    """Find the rows that break a rule. A lease or a due publish breaks one when it is late by more than `overdue`.

    Rows of django-i3tasks (without `outcome`) are judged only by the rules that django-i3tasks keeps, too.
    """
    found = (_violation(rule) for rule in rules(now - overdue))
    return [finding for finding in found if finding.count]


def rules(late: Any) -> Iterator[Rule]:
    """All rules. What is due since before `late` is late."""
    for name, broken in (*_tries(late), *_executions(), *_groups(late)):
        yield Rule(name, broken)


def _violation(rule: Rule) -> Violation:
    count = 0
    examples: list[int] = []
    for part in _slices(rule.broken):
        ids = (
            list(part.order_by("pk").values_list("pk", flat=True)[: EXAMPLES - len(examples)])
            if len(examples) < EXAMPLES
            else []
        )
        if ids or len(examples) == EXAMPLES:
            count += part.count()
        examples += ids
    found = rows(rule.broken.model).filter(pk__in=examples).order_by("pk") if examples else ()
    return Violation(rule.name, count, tuple(examples), tuple(map(_name, found)))


def _name(row: TaskExecutionTry | TaskExecution | TaskGroup) -> str:
    """The row's name, with the execution first: the commands take its id or uuid."""
    if isinstance(row, TaskExecutionTry):
        return f"{_name(row.task_execution)}, try {row.pk}"
    return f"group {row.pk}" if isinstance(row, TaskGroup) else f"execution {row.pk} {row.uuid}"


def _slices(broken: Rows) -> Iterator[Rows]:
    """The query for one range of keys after the other."""
    ends = rows(broken.model).aggregate(first=Min("pk"), last=Max("pk"))
    if ends["first"] is not None:
        for start in range(ends["first"], ends["last"] + 1, SLICE):
            yield broken.filter(pk__gte=start, pk__lt=start + SLICE)


def _tries(late: Any) -> Iterator[tuple[str, Any]]:
    tries = rows(TaskExecutionTry)
    ours = tries.filter(Q(claim_token__isnull=False) | Q(dispatch_at__isnull=False))
    result = Exists(rows(TaskExecutionResult).filter(task_execution_try=OuterRef("pk")))
    yield "try completed without a result", ours.filter(~result, is_completed=True)
    yield "try with a result but not completed", ours.filter(result, is_completed=False)
    yield "try completed without an end", ours.filter(is_completed=True, finished_at__isnull=True)
    yield (
        "try completed and still leased or due",
        tries.filter(is_completed=True).filter(Q(lease_until__isnull=False) | Q(dispatch_at__isnull=False)),
    )
    yield "try leased without a token", tries.filter(lease_until__isnull=False, claim_token__isnull=True)
    yield (
        "try claimed without a lease",
        tries.filter(is_completed=False, claim_token__isnull=False, lease_until__isnull=True),
    )
    yield "try leased and due at once", tries.filter(lease_until__isnull=False, dispatch_at__isnull=False)
    yield "lease long expired", tries.filter(lease_until__lt=late)
    yield "publish long overdue", tries.filter(dispatch_at__lt=late)


def _executions() -> Iterator[tuple[str, Any]]:
    yield from _tries_of_executions()
    yield from _outcomes()
    yield from _chains()


def _tries_of_executions() -> Iterator[tuple[str, Any]]:
    """Rules of how many tries an execution has."""
    # django-i3tasks completes no try that failed, and none whose worker died.
    left_by_old_workers = Q(tries__claim_token__isnull=True) & (
        Q(tries__started_at__isnull=False) | Q(tries__finished_at__isnull=False)
    )
    open_tries = Q(tries__is_completed=False, tries__result__isnull=True) & ~left_by_old_workers
    executions = rows(TaskExecution)
    with_open = executions.annotate(open=Count("tries", filter=open_tries))
    of_its_own = rows(TaskExecutionTry).filter(task_execution=OuterRef("pk"))
    has_unfinished = Exists(of_its_own.filter(is_completed=False))  # few, and found by an index
    yield "execution without a try", executions.filter(~Exists(of_its_own))
    yield "execution that succeeded more than once", _with_successes().filter(successes__gt=1)
    yield "execution with more than one unfinished try", with_open.filter(has_unfinished, open__gt=1)
    written = executions.annotate(written=Count("tries"), highest=Max("tries__try_number"))
    yield "execution whose tries have gaps", written.filter(written__gt=0).exclude(written=F("highest"))
    yield (
        "execution finished with an unfinished try",
        with_open.filter(has_unfinished, outcome__isnull=False, open__gt=0),
    )


def _outcomes() -> Iterator[tuple[str, Any]]:
    """Rules of what an execution says of its tries."""
    of_its_own = rows(TaskExecutionTry).filter(task_execution=OuterRef("pk"))
    ours = Exists(of_its_own.filter(claim_token__isnull=False))
    success = ExecutionOutcome.SUCCESS
    unfinished = Count("tries", filter=Q(tries__is_completed=False))
    yield (
        "execution unfinished without an unfinished try",
        rows(TaskExecution).annotate(unfinished=unfinished).filter(ours, outcome__isnull=True, unfinished=0),
    )
    yield "execution called a success without one", rows(TaskExecution).filter(~has_success(), outcome=success)
    yield (
        "execution with a success but not called one",
        _with_successes().filter(ours, successes=1).exclude(outcome=success),
    )


def _with_successes() -> Rows:
    return rows(TaskExecution).annotate(successes=Count("tries", filter=Q(tries__is_success=True)))


def _chains() -> Iterator[tuple[str, Any]]:
    executions, success = rows(TaskExecution), ExecutionOutcome.SUCCESS
    next_step = Exists(rows(TaskExecution).filter(previous=OuterRef("pk")))
    goes_on = Q(chain__0__module_name__isnull=False, cancel_requested_at__isnull=True)
    yield "chain that did not go on after a success", executions.filter(goes_on, ~next_step, outcome=success)
    yield (
        "chain that went on without a success",
        executions.filter(next_step, outcome__isnull=False).exclude(outcome=success),
    )


def _groups(late: Any) -> Iterator[tuple[str, Any]]:
    unfinished = rows(TaskExecution).filter(~has_success(), task_group=OuterRef("pk"), outcome__isnull=True)
    groups = rows(TaskGroup)
    pending, success = TaskGroup.STATUS_PENDING, TaskGroup.STATUS_SUCCESS
    yield (
        "group that waits though all its members have ended",
        groups.filter(status=pending, total_count__lte=F("completed_count") + F("failed_count")),
    )
    yield "group with a negative count", groups.filter(Q(completed_count__lt=0) | Q(failed_count__lt=0))
    yield "group that counted more than it has", groups.filter(total_count__lt=F("completed_count") + F("failed_count"))
    yield (
        "group that succeeded with an unfinished member",
        groups.filter(Exists(unfinished), status=success, finished_at__isnull=False),
    )
    callback = Exists(rows(TaskExecution).filter(previous_group=OuterRef("pk")))
    yield "group that called back without a success", groups.filter(callback).exclude(status=success)
    yield "group that waits though no member is under way", stalled_groups(late)
    yield "group whose members are not written for long", groups.filter(slices__created_at__lt=late).distinct()

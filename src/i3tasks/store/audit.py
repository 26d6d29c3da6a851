"""Does every row add up? What must hold of the tables whatever has happened, as queries that find the exceptions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, Exists, F, Max, OuterRef, Q
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from ..models import TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup
from .database import rows
from .groups import stalled_groups

EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """Rows that break a rule."""

    rule: str
    count: int
    examples: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.rule}: {self.count} (e.g. {', '.join(map(str, self.examples))})"


def audit(*, overdue: timedelta = timedelta(minutes=5), now: Combinable | None = None) -> list[Finding]:
    """What is wrong, if anything. `overdue`: how late a lease's expiry or a due publish may be before it is stuck.

    Rows of django-i3tasks (without `outcome`) are judged only by the rules that it keeps, too.
    """
    late = (now or Now()) - overdue
    return [
        Finding(rule, count, tuple(broken.values_list("pk", flat=True)[:EXAMPLES]))
        for rule, broken in (*_tries(late), *_executions(), *_groups(late))
        if (count := broken.count())
    ]


def _tries(late: Any) -> Iterator[tuple[str, Any]]:
    tries = rows(TaskExecutionTry)
    ours = tries.filter(Q(claim_token__isnull=False) | Q(dispatch_at__isnull=False))
    result = Exists(rows(TaskExecutionResult).filter(task_execution_try=OuterRef("pk")))
    yield "try completed without a result", ours.filter(~result, is_completed=True)
    yield "try with a result but not completed", tries.filter(result, is_completed=False)
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
    executions = rows(TaskExecution).annotate(
        successes=Count("tries", filter=Q(tries__is_success=True)),
        unfinished=Count("tries", filter=Q(tries__is_completed=False)),
        written=Count("tries"),
        highest=Max("tries__try_number"),
    )
    claimed = rows(TaskExecutionTry).filter(task_execution=OuterRef("pk"), claim_token__isnull=False)
    ours = executions.filter(Exists(claimed))
    success = TaskExecution.Outcome.SUCCESS
    next_step = Exists(rows(TaskExecution).filter(previous=OuterRef("pk")))
    yield "execution without a try", executions.filter(written=0)
    yield "execution that succeeded more than once", executions.filter(successes__gt=1)
    yield "execution with more than one unfinished try", executions.filter(unfinished__gt=1)
    yield "execution whose tries have gaps", executions.exclude(written=0).exclude(written=F("highest"))
    yield "execution finished with an unfinished try", executions.filter(outcome__isnull=False, unfinished__gt=0)
    yield "execution unfinished without an unfinished try", ours.filter(outcome__isnull=True, unfinished=0)
    yield "execution called a success without one", executions.filter(outcome=success, successes=0)
    yield "execution with a success but not called one", ours.filter(successes=1).exclude(outcome=success)
    yield (
        "chain that did not go on after a success",
        executions.filter(
            ~next_step, outcome=success, chain__0__module_name__isnull=False, cancel_requested_at__isnull=True
        ),
    )
    yield (
        "chain that went on without a success",
        executions.filter(next_step, outcome__isnull=False).exclude(outcome=success),
    )


def _groups(late: Any) -> Iterator[tuple[str, Any]]:
    # Of members that a worker of django-i3tasks ran, only the tries tell.
    succeeded = Exists(rows(TaskExecutionTry).filter(task_execution=OuterRef("pk"), is_success=True))
    unfinished = rows(TaskExecution).filter(~succeeded, task_group=OuterRef("pk"), outcome__isnull=True)
    groups = rows(TaskGroup)
    pending, success = TaskGroup.STATUS_PENDING, TaskGroup.STATUS_SUCCESS
    yield (
        "group that waits for nobody",
        groups.filter(status=pending, total_count__lte=F("completed_count") + F("failed_count")),
    )
    yield "group that counted more than it has", groups.filter(completed_count__gt=F("total_count"))
    yield (
        "group that succeeded with an unfinished member",
        groups.filter(Exists(unfinished), status=success, finished_at__isnull=False),
    )
    callback = Exists(rows(TaskExecution).filter(previous_group=OuterRef("pk")))
    yield "group that called back without a success", groups.filter(callback).exclude(status=success)
    yield "group that waits though no member is under way", stalled_groups(late)

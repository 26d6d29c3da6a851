"""The pages of the groups: how far each is, which members failed; close and cancel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from django.http import Http404, HttpRequest, HttpResponse

from ..core.clock import current_clock
from ..engine.launch import launch
from ..exceptions import I3TasksError
from ..models import ExecutionOutcome, TaskExecution, TaskExecutionTry, TaskGroup
from ..store.database import rows, time_of
from ..store.groups import cancel_group, close_group
from ..store.lineage import some_members
from ..store.states import telling_of
from .access import board_act, board_page
from .answering import done, not_done
from .lines import shown_state
from .navigation import url
from .rendering import page

ON_A_PAGE = 50
MOST_FAILED = 50
MOST_MEMBERS = 50
GONE = "There is no such group. Retention may have deleted it."
Change = Callable[..., Sequence[TaskExecutionTry]]
STATUSES = (TaskGroup.STATUS_PENDING, TaskGroup.STATUS_SUCCESS, TaskGroup.STATUS_FAILED)


@dataclass(frozen=True, slots=True)
class GroupProgress:
    """A group, with the numbers of its progress bar."""

    group: TaskGroup

    @property
    def ended(self) -> int:
        return self.group.completed_count + self.group.failed_count

    @property
    def most(self) -> int:
        """The number at the end of the bar; 1 for an empty group."""
        return max(self.group.total_count, self.ended, 1)

    @property
    def callback(self) -> str:
        return ".".join(filter(None, [self.group.callback_task_path, self.group.callback_task_name]))

    @property
    def is_pending(self) -> bool:
        return self.group.status == TaskGroup.STATUS_PENDING


@board_page
def groups(request: HttpRequest) -> HttpResponse:
    """Show the newest groups, of one status or of all."""
    status = request.GET.get("status", "")
    before = request.GET.get("before", "")
    found = rows(TaskGroup).order_by("-pk")
    if status in STATUSES:
        found = found.filter(status=status)
    if before.isdecimal() and len(before) < 19:
        found = found.filter(pk__lt=int(before))
    shown = list(found[: ON_A_PAGE + 1])
    has_more = len(shown) > ON_A_PAGE
    shown = shown[:ON_A_PAGE]
    asked = {"status": status} if status in STATUSES else {}
    return page(
        request,
        "groups",
        "groups",
        groups=[GroupProgress(group) for group in shown],
        shortcuts=list(_shortcuts(asked.get("status", ""))),
        older=url("groups", **asked, before=shown[-1].pk) if has_more else "",
        newest=url("groups", **asked) if before else "",
    )


def _shortcuts(chosen: str) -> Iterator[tuple[str, str, bool]]:
    """The statuses, with their addresses, and whether each is the one that is shown."""
    yield "all", url("groups"), not chosen
    for status in STATUSES:
        yield status, url("groups", status=status), status == chosen


@board_page
def group(request: HttpRequest, pk: int) -> HttpResponse:
    """Show one group, with members that failed."""
    row = rows(TaskGroup).filter(pk=pk).first()
    if row is None:
        raise Http404(GONE)
    now = current_clock().now()
    members = rows(TaskExecution).filter(task_group=row.pk)
    # By an index of failures: in the order of their ids, the database may look at all executions for them.
    failures = members.filter(outcome=ExecutionOutcome.FAILED).order_by("-finished_at")
    failed = list(failures[: MOST_FAILED + 1]) if row.failed_count else []
    return page(
        request,
        "group",
        "groups",
        progress=GroupProgress(row),
        failed=list(zip(failed[:MOST_FAILED], _errors(failed[:MOST_FAILED]), strict=True)),
        has_more_failed=len(failed) > MOST_FAILED,
        members=[(one, shown_state(one, telling_of(one.latest), now)) for one in some_members(row, MOST_MEMBERS)],
        after=rows(TaskExecution).filter(previous_group=row.pk).first(),
    )


def _errors(executions: Sequence[TaskExecution]) -> list[str]:
    """The class of each execution's last error."""
    tries = rows(TaskExecutionTry).filter(task_execution__in=executions).order_by("try_number")
    last = dict(tries.values_list("task_execution_id", "error_class")) if executions else {}
    return [last.get(execution.pk) or "" for execution in executions]


@board_act
def close(request: HttpRequest, pk: int) -> HttpResponse:
    """Expect no further members."""
    said = f"Group {pk} is closed: it ends with the members that have ended."
    return _act(request, pk, "close group", close_group, said)


@board_act
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Cancel the unfinished parts of the group."""
    return _act(request, pk, "cancel group", cancel_group, f"Group {pk} is cancelled: waiting members never run.")


def _act(request: HttpRequest, pk: int, act: str, change: Change, said: str) -> HttpResponse:
    row = rows(TaskGroup).filter(pk=pk).first()
    if row is None:
        raise Http404(GONE)
    back = url("group", pk)
    if row.status != TaskGroup.STATUS_PENDING:
        return not_done(request, f"Group {pk} has ended already.", back)
    try:
        launch(change(pk, now=time_of(current_clock())))
    except I3TasksError as error:
        return not_done(request, str(error), back)
    return done(request, act, f"group {pk}", 1, said, back)

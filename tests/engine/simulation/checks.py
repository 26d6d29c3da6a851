"""What must be so when a schedule is over: the audit, and our own accounting of what bodies and callers noted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from django.db import connection
from django.db.models import Value
from django.db.transaction import TransactionManagementError

from i3tasks import exceptions
from i3tasks.models import TaskExecution, TaskExecutionResult, TaskExecutionTry, TaskGroup
from i3tasks.store.audit import audit, rules

from .bodies import Wanted, full_name, ledger
from .calls import LARGE, NEVER, Calls, ends_of_executions
from .process import HEARTBEAT, PASS_SECONDS

WANTED, RETRY, LATE, LOST, CANCELLED = map(
    full_name,
    (Wanted, exceptions.Retry, exceptions.TaskTimeout, exceptions.WorkerLost, exceptions.TaskCancelled),
)
GROUP, EXIT = "ExceptionGroup", "SystemExit"
LEFT_OPEN = full_name(TransactionManagementError)
OWN_ERRORS = {
    "stumble": WANTED,
    "fail": WANTED,
    "snooze": RETRY,
    "hurry": LATE,
    "snooze_together": GROUP,
    "fail_together": GROUP,
    "leave": EXIT,
    "abandon": LEFT_OPEN,
}
"""What the tries of a task may end with beside the loss of their worker, and a cancellation."""
FAILING = {"fail", "fail_together", "take_along"}
_audited: list[tuple[str, Sequence[Any]]] = []
"""The audit's statements, with NOW in their parameters, to be run as one: the ORM takes far longer than SQLite."""
NOW = object()


def check_audit(now: datetime) -> None:
    """No finding."""
    if not _audited or _quickly_counted(now):
        findings = audit(overdue=timedelta(0), now=Value(now))
        assert not findings, [str(finding) for finding in findings]
        _audited[:] = _statements_of_audit(now)


def check_rest() -> None:
    """Nothing waits, whatever was deleted."""
    assert not TaskExecution.objects.filter(outcome__isnull=True).exists(), "an execution has not ended"
    assert not TaskGroup.objects.filter(status=TaskGroup.STATUS_PENDING).exists(), "a group waits"


def _quickly_counted(now: datetime) -> int:
    moment = connection.ops.adapt_datetimefield_value(now)
    sql = " + ".join(f"({statement})" for statement, _ in _audited)
    params = [moment if value is NOW else value for _, values in _audited for value in values]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {sql}", params)
        return int(cursor.fetchone()[0])


def _statements_of_audit(now: datetime) -> list[tuple[str, Sequence[Any]]]:
    moment, statements = connection.ops.adapt_datetimefield_value(now), []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append((sql, [NOW if value == moment else value for value in params]))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        for rule in rules(Value(now) - timedelta(0)):
            rule.broken.count()
    assert all(sql.startswith("SELECT COUNT(*)") for sql, _ in statements)
    return statements


class Books:
    """All rows, read once, against what bodies and callers noted."""

    def __init__(self, calls: Calls, handed_back: Mapping[int, int]) -> None:
        self._calls = calls
        self._handed_back = handed_back
        self._executions = {row["pk"]: row for row in TaskExecution.objects.order_by("pk").values(*_EXECUTION)}
        self._groups = list(TaskGroup.objects.order_by("pk").values(*_GROUP))
        self._tries: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for row in TaskExecutionTry.objects.order_by("try_number").values(*_TRY):
            self._tries[row["task_execution_id"]].append(row)

    def check(self) -> None:
        ends = ends_of_executions()
        for pk, end in self._calls.ended.items():
            assert ends.get(pk) == end, f"{pk} ended as {end}, and then as {ends.get(pk)}"
        for row in self._executions.values():
            self._check_execution(row)
            for task_try in self._tries[row["pk"]]:
                self._check_try(task_try, row)
        tries = {row["pk"] for rows in self._tries.values() for row in rows}
        assert set(ledger.begun) <= tries, "something ran that was not asked for"
        assert TaskExecutionResult.objects.count() == len(tries), "one result for each try"
        self._check_follow_ups()
        self._check_cancellations()
        self._check_snoozes()
        self._check_unique()

    def _check_execution(self, row: Any) -> None:
        pk, name, outcome = row["pk"], row["task_name"], row["outcome"]
        assert row["task_args"] not in ([NEVER], [-1]), "a call was rolled back, and is there"
        expected = {"failed" if name in FAILING else "success"}
        if row["cancel_requested_at"] is not None:
            expected = {"cancelled", "success"} - ({"success"} if name in FAILING else set())
        assert outcome in expected, f"{name} {pk}: {outcome}"
        successes = sum(task_try["is_success"] for task_try in self._tries[pk])
        assert successes == (outcome == "success"), f"{name} {pk} succeeded {successes} times"

    def _check_try(self, row: Any, execution: Any) -> None:
        pk, error, begun = row["pk"], row["error_class"], ledger.begun[row["pk"]]
        was_cancelled = error == CANCELLED and execution["cancel_requested_at"] is not None
        assert begun <= 1 + self._handed_back[pk], f"try {pk} ran {begun} times"
        if execution["task_name"] != "collect" and (row["is_success"] or error in OWN_ERRORS.values()):
            assert begun >= 1, f"try {pk} ended without having run"
        assert row["started_at"] is not None or was_cancelled, f"try {pk} ended without a claim"
        if row["started_at"] is not None and row["run_after"] is not None:
            assert row["started_at"] >= row["run_after"], f"try {pk} began too early"
        own = OWN_ERRORS.get(execution["task_name"])
        assert row["is_success"] or was_cancelled or error in {own, LOST}, f"{execution['task_name']}: {error}"

    def _check_follow_ups(self) -> None:
        """Each group that succeeded is called back once, each failure is mourned once, and nothing else is."""
        called_back = Counter(row["previous_group_id"] for row in self._executions.values())
        mourned = Counter(row["task_args"][1] for row in self._executions.values() if row["task_name"] == "mourn")
        to_mourn: Counter[str] = Counter()
        for group in self._groups:
            pk, status = group["pk"], group["status"]
            assert status != TaskGroup.STATUS_PENDING, f"group {pk} still waits"
            succeeded = status == TaskGroup.STATUS_SUCCESS
            assert not succeeded or group["completed_count"] == group["total_count"], f"group {pk} is not complete"
            self._check_deadline(group)
            if succeeded and group["total_count"] >= LARGE:
                [callback] = [row for row in self._executions.values() if row["previous_group_id"] == pk]
                assert callback["task_args"] == [list(range(group["total_count"]))], f"group {pk}: {callback}"
            assert called_back[pk] == succeeded, f"group {pk}, {status}, was called back {called_back[pk]} times"
            if group["on_failure"] and not succeeded:
                to_mourn[group["on_failure"]["args"][0]] += 1
        for row in self._executions.values():
            if row["outcome"] == "failed" and "on_failure" in (row["options"] or {}):
                to_mourn[row["options"]["on_failure"]["args"][0]] += 1
        assert mourned == to_mourn, f"{mourned} instead of {to_mourn}"
        for row in self._executions.values():
            assert row["task_name"] != "mourn" or row["task_args"][0] in self._executions, f"{row['pk']} mourns no one"
        texts = Counter(str(row["task_args"]) for row in self._executions.values())
        assert all(texts[str([tag])] <= 1 for tag in self._calls.appended), "a step that was added ran twice"
        after = Counter(row["previous_id"] for row in self._executions.values() if row["part_of_id"] is None)
        assert all(times <= 1 for pk, times in after.items() if pk is not None), "a chain was followed twice"

    def _check_deadline(self, group: Any) -> None:
        pk, deadline, at = group["pk"], group["deadline"], group["finished_at"]
        if deadline is not None and group["status"] == TaskGroup.STATUS_SUCCESS and self._calls.is_calm:
            latest = deadline + timedelta(seconds=PASS_SECONDS[1] + 1)
            assert at < latest, f"group {pk} succeeded long after its deadline"
        elif deadline is not None and group["status"] == TaskGroup.STATUS_FAILED and not self._calls.cancelled:
            assert at > deadline, f"group {pk} failed before its deadline"

    def _check_cancellations(self) -> None:
        """What waited never ran after that; what ran ended, once; and nothing followed."""
        followed = {row["previous_id"] for row in self._executions.values()}
        for item in self._calls.cancelled:
            row, pk = self._executions[item.execution_id], item.execution_id
            assert len(self._tries[pk]) == item.tries, f"{pk} was tried again after it was cancelled"
            assert pk not in followed, f"{pk} was cancelled, and its chain went on"
            if item.was_waiting:
                assert row["outcome"] == "cancelled", f"{pk} waited, was cancelled, and came to {row['outcome']}"
                assert ledger.begun_execution[pk] == item.begun, f"{pk} ran after it was cancelled"
            elif self._calls.is_calm:
                assert row["finished_at"] - item.at < timedelta(seconds=HEARTBEAT + 1), f"{pk} went on for long"

    def _check_snoozes(self) -> None:
        for pk, tries in self._tries.items():
            for task_try, following in pairwise(tries):
                if task_try["error_class"] in {RETRY, GROUP} and pk not in self._calls.put_off:
                    delay = ledger.snoozed[task_try["pk"]]
                    until = task_try["finished_at"] + delay if delay else None
                    assert following["run_after"] == until, f"{pk} snoozed for {delay}, until {following['run_after']}"

    def _check_unique(self) -> None:
        free_at: dict[str, datetime] = {}
        for row in self._executions.values():
            if row["task_name"] == "lone":
                number = str(row["task_args"])
                since = self._calls.alone_since[row["pk"]]  # `created_at` is by the clock of the one who called
                taken = number in free_at and free_at[number] > since
                assert not taken, f"{row['pk']} was enqueued while another one was unfinished"
                free_at[number] = row["finished_at"]


_EXECUTION = (
    *("pk", "task_name", "task_args", "outcome", "options", "finished_at", "cancel_requested_at"),
    *("previous_id", "previous_group_id", "part_of_id"),
)
_TRY = (*("pk", "task_execution_id", "started_at", "run_after", "finished_at", "is_success", "error_class"),)
_GROUP = ("pk", "status", "total_count", "completed_count", "on_failure", "deadline", "finished_at")

"""Executions in the words of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError

from ..dashboard.lines import ExecutionLine, duration_of, lines, queue_of, shown_state, wait_of
from ..dashboard.writing import instant, relative, span
from ..models import TaskExecution, TaskExecutionTry, TryState
from ..store.concealing import call_text
from ..store.database import rows
from ..store.search import loaded
from ..store.search_terms import Keys
from ..store.states import telling_of
from ..store.status import shown_result
from .tables import plain

HEAD = ("id", "state", "task", "queue", "tries", "asked", "wait", "duration", "next try", "error")


def executions_named(keys: Keys) -> list[int]:
    """The ids of the executions, in the order in which they are named by kind. Raises CommandError for the first
    that does not exist."""
    by_id = set(rows(TaskExecution).filter(pk__in=keys.ids).values_list("pk", flat=True))
    by_uuid: dict[UUID, int] = dict(rows(TaskExecution).filter(uuid__in=keys.uuids).values_list("uuid", "pk"))
    tries = rows(TaskExecutionTry).filter(pk__in=keys.tries)
    by_try: dict[int, int] = dict(tries.values_list("pk", "task_execution_id"))
    missing: list[Any] = [pk for pk in keys.ids if pk not in by_id]
    missing += [uuid for uuid in keys.uuids if uuid not in by_uuid]
    missing += [f"of try {pk}" for pk in keys.tries if pk not in by_try]
    if missing:
        raise CommandError(
            f"There is no execution {missing[0]}: never committed, or deleted since. `i3tasks list` shows "
            "what there is."
        )
    found = [*keys.ids, *(by_uuid[uuid] for uuid in keys.uuids), *(by_try[pk] for pk in keys.tries)]
    return list(dict.fromkeys(found))


def listed(ids: Sequence[int], now: datetime) -> list[ExecutionLine]:
    """The executions as lines of a list."""
    return lines(loaded(ids), now, with_texts=True)


def cells(line: ExecutionLine, now: datetime) -> tuple[Any, ...]:
    """A line of a table below HEAD."""
    error_class = line.error_class.rpartition(".")[2]
    return (
        line.execution.pk,
        line.state,
        line.task,
        line.queue,
        line.tries,
        relative(line.execution.created_at, now),
        span(line.wait),
        span(line.duration),
        relative(line.next_at, now),
        f"{error_class}: {line.error}" if line.error else error_class,
    )


def facts(line: ExecutionLine) -> dict[str, Any]:
    """The same as data. Times are in seconds."""
    row = line.execution
    return {
        "id": row.pk,
        "uuid": row.uuid,
        "state": line.state,
        "task": line.task,
        "queue": line.queue,
        "tries": line.tries,
        "asked_at": row.created_at,
        "finished_at": row.finished_at,
        "wait": None if line.wait is None else line.wait.total_seconds(),
        "duration": None if line.duration is None else line.duration.total_seconds(),
        "next_at": line.next_at,
        "error_class": line.error_class or None,
        "error": line.error or None,
    }


def told(execution: TaskExecution, tries: Sequence[TaskExecutionTry], now: datetime) -> Iterator[str]:
    """An execution and its tries, with their results, in words."""
    state = shown_state(execution, telling_of(tries), now)
    call = call_text(execution.task_path, execution.task_name, execution.task_args, execution.task_kwargs)
    yield plain(f"{state}: {execution.task_path}.{execution.task_name}({call})")
    yield f"  id {execution.pk}, uuid {execution.uuid}, queue {queue_of(execution)}"
    yield f"  asked for {instant(execution.created_at)} ({relative(execution.created_at, now)})"
    for one in tries:
        yield f"  try {one.try_number}: {', '.join(_course(one, now))}{_outcome(one)}"


def _course(one: TaskExecutionTry, now: datetime) -> Iterator[str]:
    state, wait, duration = TryState.of(one), wait_of(one, now), duration_of(one, now)
    if state is TryState.PENDING:
        if one.run_after is not None and one.run_after > now:
            yield f"waits until {instant(one.run_after)} ({relative(one.run_after, now)})"
        else:
            yield f"waits for a worker, for {span(wait) or '0 ms'} so far"
        return
    yield "runs" if state is TryState.RUNNING else f"{state.value} {instant(one.finished_at)}"
    if wait is not None:
        yield f"waited {span(wait)}"
    if duration is not None:
        yield f"took {span(duration)}" if state is not TryState.RUNNING else f"for {span(duration)} so far"
    if one.worker_id:
        yield f"on {one.worker_id}"


def _outcome(one: TaskExecutionTry) -> str:
    result = getattr(one, "result", None)
    if result is None:
        return f": {one.error_class}" if one.error_class else ""
    text_of = f" (the text of a {result.text_of}, which JSON can't hold)" if result.text_of else ""
    if one.is_success:
        return f": {plain(repr(shown_result(one)))}{text_of}"
    return f": {plain(f'{one.error_class}: {shown_result(one)}' if one.error_class else shown_result(one))}"

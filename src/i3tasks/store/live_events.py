"""Changes of executions since the last look: asked for, begun, ended. Read from the rows, by their indexes.

A row is committed a little after it got its id or its time, so each look goes back over the last ones and leaves out
those that it has told of already. A try that begins and ends between two looks is told of once, by its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Max

from ..models import HEAVY, TaskExecutionResult, TaskExecutionTry, TryState
from .database import rows
from .search import Search, matching

OVERLAP = 2_000
"""Ids that are looked at again."""
MOST_AT_ONCE = 5_000
LATE = timedelta(seconds=30)
"""How late a claim may be committed after its `started_at` and still be told of."""
ASKED, BEGUN, SUCCEEDED, FAILED = "asked", "begun", "succeeded", "failed"


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened to a try."""

    kind: str
    at: datetime
    task_try: TaskExecutionTry


class _Ids:
    """Tells which ids of a table are new."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._newest = rows(model).aggregate(newest=Max("pk"))["newest"] or 0
        self._told: set[int] = set()
        self.fresh()

    def fresh(self) -> set[int]:
        """The ids that were not there at the last call; of very many, the latest."""
        found = rows(self._model).filter(pk__gt=self._newest - OVERLAP).order_by("-pk").values_list("pk", flat=True)
        fresh = {*found[: OVERLAP + MOST_AT_ONCE]} - self._told
        self._newest = max([self._newest, *fresh])
        self._told = {pk for pk in self._told | fresh if pk > self._newest - OVERLAP}
        return fresh


class Following:
    """Looks again and again. It tells of nothing that was there when it began."""

    def __init__(self, search: Search, now: datetime) -> None:
        self._search = search
        self._asked = _Ids(TaskExecutionTry)
        self._ended = _Ids(TaskExecutionResult)
        self._begun: set[tuple[int, datetime]] = set()
        self._newly_running(now)

    def look(self, now: datetime) -> list[Happening]:
        """The changes since the last look, in the order of time."""
        asked, running = self._asked.fresh(), self._newly_running(now)
        ended = rows(TaskExecutionResult).filter(pk__in=self._ended.fresh())
        over = set(ended.values_list("task_execution_try_id", flat=True))
        tries = _loaded({*asked, *running, *over})
        executions = {task_try.task_execution_id for task_try in tries.values()}
        meant = executions if self._search == Search() else matching(self._search, executions, now)
        found = [
            *_happenings(ASKED, asked, tries, lambda one: one.asked_at),
            *_happenings(BEGUN, running, tries, lambda one: one.started_at),
            *_happenings("", over, tries, lambda one: one.finished_at),
        ]
        return sorted((one for one in found if one.task_try.task_execution_id in meant), key=lambda one: one.at)

    def _newly_running(self, now: datetime) -> set[int]:
        running = rows(TaskExecutionTry).filter(TryState.RUNNING.condition(), started_at__gte=now - LATE)
        latest: Any = running.order_by("-started_at").values_list("pk", "started_at")
        found: set[tuple[int, datetime]] = {*latest[:MOST_AT_ONCE]}
        fresh = found - self._begun
        self._begun = {begun for begun in self._begun | found if begun[1] > now - 2 * LATE}
        return {pk for pk, _ in fresh}


def _loaded(ids: Iterable[int]) -> dict[int, TaskExecutionTry]:
    light = [f"task_execution__{name}" for name in HEAVY]
    found = rows(TaskExecutionTry).filter(pk__in=[*ids]).select_related("task_execution")
    return {task_try.pk: task_try for task_try in found.defer("error_traceback", *light)}


def _happenings(
    kind: str, ids: Iterable[int], tries: dict[int, TaskExecutionTry], at: Callable[[Any], datetime | None]
) -> list[Happening]:
    found = []
    for task_try in (tries[pk] for pk in ids if pk in tries):
        moment = at(task_try)
        if moment is not None:
            found.append(Happening(kind or (SUCCEEDED if task_try.is_success else FAILED), moment, task_try))
    return found

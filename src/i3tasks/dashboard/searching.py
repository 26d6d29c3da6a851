"""The filter of the list of executions: read from the address, shown as a form, and offered words to choose from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import HttpRequest

from ..conf import get_config
from ..exceptions import SearchError
from ..models import TaskExecutionTry
from ..registry import all_tasks
from ..store.database import rows
from ..store.search import FIELDS, Search
from ..store.states import FAILED_TRY, State
from .access import ARGUMENTS, may
from .navigation import url

LABELS = {
    "state": "State",
    "task": "Task",
    "queue": "Queue",
    "error": "Error class",
    "asked": "Asked for",
    "finished": "Finished",
    "id": "Id, uuid or try:id",
    "argument": "Argument contains",
    "min_tries": "Tries, at least",
}
HINTS = {
    "asked": "2h, 1d..6h, 2026-11-28",
    "finished": "30m, 2026-11-28..",
    "task": "send_email",
    "error": "TimeoutError",
    "min_tries": "3",
}
SHORTCUTS: tuple[tuple[str, str], ...] = (
    ("all", ""),
    *((state.value, state.value) for state in State),
)
NEWEST_ERRORS = 200
"""Failed tries whose classes are offered."""
MAY_NOT = "You may not see arguments, and so not search for them."


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the form."""

    name: str
    label: str
    value: str
    hint: str
    choices: tuple[str, ...]
    problem: str


@dataclass(frozen=True, slots=True)
class Filter:
    """A request's filter. `search` is None where it can't be read; `problem` and its `field` say why."""

    asked: Mapping[str, str]
    search: Search | None
    problem: str = ""
    field: str = ""

    @property
    def words(self) -> str:
        """The filter as a person reads it."""
        return words(self.asked)

    def fields(self, *, with_argument: bool) -> Iterator[Field]:
        """The fields of the form, but for the state, which has its links."""
        for name, label in LABELS.items():
            if name == "state" or (name == "argument" and not with_argument):
                continue
            problem = self.problem if self.field == name else ""
            yield Field(name, label, self.asked.get(name, ""), HINTS.get(name, ""), _choices(name), problem)

    def shortcuts(self) -> Iterator[tuple[str, str, bool]]:
        """A link for each state, with the rest of the filter kept: its label, address, and whether it is lit."""
        for label, state in SHORTCUTS:
            query = {**self.asked, "state": state}
            yield label, url("executions", **_filled(query)), self.asked.get("state", "") == state


def words(asked: Mapping[str, str]) -> str:
    """The fields of a filter in a line: `state failed, task send_email`."""
    given = [f"{label.lower()} {asked[name]}" for name, label in LABELS.items() if name in asked]
    return ", ".join(given) or "all executions"


def read(request: HttpRequest, given: Mapping[str, str], now: datetime) -> Filter:
    """The filter that a form or an address describes."""
    asked = _filled({name: given.get(name, "").strip() for name in FIELDS})
    if "argument" in asked and not may(request, ARGUMENTS):
        return Filter(asked, None, MAY_NOT, "argument")
    try:
        return Filter(asked, Search.parse(asked, now))
    except SearchError as error:
        return Filter(asked, None, str(error), error.field)


def _filled(query: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in query.items() if text}


def _choices(name: str) -> tuple[str, ...]:
    if name == "task":
        return tuple(sorted(spec.path for spec in all_tasks()))
    if name == "queue":
        return tuple(sorted(get_config().queues))
    return tuple(_errors()) if name == "error" else ()


def _errors() -> list[str]:
    failed: Any = rows(TaskExecutionTry).filter(FAILED_TRY, finished_at__isnull=False)
    newest = failed.order_by("-finished_at").values_list("error_class", flat=True)[:NEWEST_ERRORS]
    return sorted({name for name in newest if name})

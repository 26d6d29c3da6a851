"""The page of the tasks: how many tries of each ended lately, how, and after how long; and what fails where."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from ..core.clock import current_clock
from ..models import TaskExecutionTry
from ..store.database import rows
from ..store.deploys import deploys_since
from ..store.ended_tries import Ended, Lately, ended_lately, failed_lately, mean, percentile
from . import charts
from .access import board_page
from .deploys import marks
from .rendering import page

MOST_PLACED = 500
"""Failed tries whose tracebacks are read."""
MOST_ERRORS = 50
POINTS = 30
_PLACE = re.compile(r'^\s*File "([^"\n]{1,500})", line (\d+), in (.{1,200})$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """One task of the page. Times are in seconds."""

    name: str
    tries: Sequence[Ended]
    lately: Lately
    deploys: Sequence[charts.Mark]

    @property
    def line(self) -> SafeString:
        """A chart of the succeeded and failed tries over the time, with the deploys."""
        said = f"{len(self.tries):,} tries ended, {self.failed:,} of which failed."
        parts = self.lately.parts(self.tries, POINTS)
        stacks = [(sum(one.is_success for one in part), sum(not one.is_success for one in part)) for part in parts]
        return charts.spark_bars(stacks, ("good", "poor"), said=said, marks=self.deploys)

    @property
    def failed(self) -> int:
        return sum(not one.is_success for one in self.tries)

    @property
    def percent(self) -> float:
        """The percentage of failed tries."""
        return 100 * self.failed / len(self.tries)

    @property
    def duration(self) -> float | None:
        return mean([one.duration for one in self.tries])

    @property
    def slow(self) -> float | None:
        """95 percent took at most this long."""
        return percentile([one.duration for one in self.tries], 95)

    @property
    def wait(self) -> float | None:
        return mean([one.wait for one in self.tries])


@dataclass(frozen=True, slots=True)
class ErrorFacts:
    """Tries of a task that failed with errors of one class, raised at one place."""

    task: str
    error_class: str
    place: str
    tries: Sequence[Ended]

    @property
    def latest(self) -> Ended:
        return self.tries[0]


@board_page
def tasks(request: HttpRequest) -> HttpResponse:
    """Show the tasks of which tries ended lately, the busiest first."""
    now = current_clock().now()
    lately, failed = ended_lately(now), failed_lately(now)
    errors = errors_of(failed.tries[:MOST_PLACED])
    deploys = deploys_since(lately.since)
    return page(
        request,
        "tasks",
        "tasks",
        tasks=facts_of_tasks(lately, marks(deploys, lately.since, now)),
        deploys=deploys,
        lately=lately,
        errors=errors[:MOST_ERRORS],
        errors_since=failed.tries[:MOST_PLACED][-1].finished_at if len(failed.tries) > MOST_PLACED else failed.since,
    )


def facts_of_tasks(lately: Lately, deploys: Sequence[charts.Mark] = ()) -> list[TaskFacts]:
    """The tasks of these tries, those with most of them first."""
    by_task: defaultdict[str, list[Ended]] = defaultdict(list)
    for one in lately.tries:
        by_task[one.task].append(one)
    found = [TaskFacts(name, tries, lately, deploys) for name, tries in by_task.items()]
    return sorted(found, key=lambda task: (-len(task.tries), task.name))


def errors_of(failed: Sequence[Ended]) -> list[ErrorFacts]:
    """Group these failures (given newest first) by task, class and place; the most frequent group is the first."""
    places = _places(failed)
    by_kind: defaultdict[tuple[str, str, str], list[Ended]] = defaultdict(list)
    for one in failed:
        by_kind[one.task, one.error_class, places.get(one.try_id, "")].append(one)
    found = [ErrorFacts(*kind, tries) for kind, tries in by_kind.items()]
    return sorted(found, key=lambda error: len(error.tries), reverse=True)


def place_of(traceback: str) -> str:
    """`file:line in function` of a traceback's last frame; "" if it has none."""
    frames = _PLACE.findall(traceback)
    return "{}:{} in {}".format(*frames[-1]) if frames else ""


def _places(failed: Sequence[Ended]) -> Mapping[int, str]:
    tries = rows(TaskExecutionTry).filter(pk__in=[one.try_id for one in failed])
    found = tries.values_list("pk", "error_traceback") if failed else ()
    return {pk: place_of(traceback or "") for pk, traceback in found}

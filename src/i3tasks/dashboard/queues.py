"""The page of the queues: how many tries wait in each and for how long, its throughput; pause and resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse

from ..conf import get_config
from ..core.clock import current_clock
from ..exceptions import StoreUnavailable, UnknownQueueError
from ..models import QueuePause
from ..store.database import rows, time_of
from ..store.ended_tries import Ended, Lately, ended_lately, mean
from ..store.figures import DEFERRED, MOST_COUNTED, RUNNING, WAITING, figures
from ..store.pauses import pause, resume
from ..types import DatabaseQueue, PushQueue
from . import charts
from .access import board_act, board_page
from .answering import done, name_of, not_done
from .navigation import url
from .rendering import page
from .writing import rate, span

POINTS = 30


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """One row of the page."""

    name: str
    kind: str
    pause: QueuePause | None
    counts: Mapping[str, int]
    oldest: float
    workers: int
    lately: Lately
    tries: Sequence[Ended]

    @property
    def is_paused(self) -> bool:
        return self.pause is not None

    @property
    def rate(self) -> str:
        return rate(len(self.tries) / self.lately.seconds)

    @property
    def wait(self) -> float | None:
        """The mean, in seconds."""
        return mean([one.wait for one in self.tries])

    @property
    def ended_line(self) -> Any:
        values = self.lately.buckets(self.tries, POINTS, lambda part: float(len(part)))
        return charts.sparkline(values, said=f"{len(self.tries):,} tries ended: {self.rate}.")

    @property
    def wait_line(self) -> Any:
        values = self.lately.buckets(self.tries, POINTS, lambda part: mean([one.wait for one in part]))
        said = "No try began." if self.wait is None else f"Tries waited {span(self.wait)} on average."
        return charts.sparkline(values, said=said)


@board_page
def queues(request: HttpRequest) -> HttpResponse:
    """Show all queues."""
    now = current_clock().now()
    lately = ended_lately(now)
    found, is_cut = facts_of_queues(now, lately)
    return page(request, "queues", "queues", queues=found, lately=lately, is_cut=is_cut, most=MOST_COUNTED)


def facts_of_queues(now: datetime, lately: Lately) -> tuple[list[QueueFacts], bool]:
    """All queues, those of I3TASKS in its order first, and whether the counts are cut."""
    known = figures(now)
    pauses = {one.queue_name: one for one in rows(QueuePause).all()}
    names = (
        {name: None for name, _ in known.tries}
        | dict.fromkeys(pauses)
        | dict.fromkeys(one.queue for one in lately.tries)
    )
    in_order = [*get_config().queues, *sorted(names.keys() - get_config().queues.keys())]
    return [
        QueueFacts(
            name=name,
            kind=kind_of(name),
            pause=pauses.get(name),
            counts={state: known.tries.get((name, state), 0) for state in (WAITING, RUNNING, DEFERRED)},
            oldest=known.oldest_waiting.get(name, 0.0),
            workers=known.queue_workers.get(name, 0),
            lately=lately,
            tries=[one for one in lately.tries if one.queue == name],
        )
        for name in in_order
    ], known.is_cut


def kind_of(name: str) -> str:
    """How a queue's tries reach their workers."""
    names = get_config().queues.get(name)
    if names is None:
        return "not in I3TASKS"
    return {PushQueue: "push", DatabaseQueue: "database"}.get(type(names.queue), "pull")


@board_act
def pause_queue(request: HttpRequest) -> HttpResponse:
    """Pause the queue that the form names."""
    try:
        name = _queue_named(request)
        is_new = pause(name, by=name_of(request), now=time_of(current_clock()))
    except (UnknownQueueError, StoreUnavailable) as error:
        return not_done(request, str(error), url("queues"))
    said = f"{name} is paused: none of its tries begins." if is_new else f"{name} was paused already."
    return done(request, "pause queue", name, int(is_new), said, url("queues"))


@board_act
def resume_queue(request: HttpRequest) -> HttpResponse:
    """Resume the queue that the form names."""
    try:
        name = _queue_named(request)
        is_new = resume(name, by=name_of(request))
    except (UnknownQueueError, StoreUnavailable) as error:
        return not_done(request, str(error), url("queues"))
    said = f"{name} is resumed: its waiting tries are due." if is_new else f"{name} was not paused."
    return done(request, "resume queue", name, int(is_new), said, url("queues"))


def _queue_named(request: HttpRequest) -> str:
    name = request.POST.get("queue", "")
    if not name:  # to `pause` and `resume`, that is the default queue
        raise UnknownQueueError("The form names no queue. Load the page again.")
    return name

"""The pages of the board, as the bar at its top lists them."""

from __future__ import annotations

from dataclasses import dataclass

from .navigation import url


@dataclass(frozen=True, slots=True)
class Place:
    """A page of the bar. `name` is that of its URL, and of the section that its sub-pages belong to."""

    name: str
    label: str

    @property
    def url(self) -> str:
        return url(self.name)


PLACES = (
    Place("overview", "Overview"),
    Place("executions", "Executions"),
    Place("queues", "Queues"),
    Place("tasks", "Tasks"),
    Place("workers", "Workers"),
    Place("schedules", "Schedules"),
    Place("groups", "Groups"),
    Place("board-acts", "Log"),
)
"""In the order of the bar. A page that is not among them is not linked to: see `link`."""


def link(name: str, **query: object) -> str:
    """The address of a page of the bar; "" if there is none of that name."""
    return url(name, **query) if any(place.name == name for place in PLACES) else ""

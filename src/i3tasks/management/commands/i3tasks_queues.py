"""`i3tasks_queues`, also `i3tasks queues`: what waits, runs and is put off in each queue."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from ...conf import get_config
from ...core.clock import current_clock
from ...dashboard.writing import span
from ...store.figures import DEFERRED, MOST_COUNTED, RUNNING, WAITING, Figures, figures
from ..command import RowsCommand, add_json

HEAD = ("queue", "kind", "waiting", "oldest", "running", "put off", "workers")
CUT = f"Of each state, {MOST_COUNTED:,} rows were counted, those that wait longest first: there are more."


class Command(RowsCommand):
    help = "Show what waits, runs and is put off in each queue, how long the oldest has waited, and how many run it."

    def add_arguments(self, parser: CommandParser) -> None:
        add_json(parser, "Print it as a JSON list.")

    def handle(self, *args: Any, as_json: bool = False, **options: Any) -> None:
        read = figures(current_clock().now())
        queues = [_facts(name, read) for name in sorted(read.queue_workers)]
        if as_json:
            self.write_json(queues)
            return
        self.write_table(HEAD, [_cells(queue) for queue in queues])
        if read.is_cut:
            self.stdout.write(CUT)


def _facts(name: str, read: Figures) -> dict[str, Any]:
    known = get_config().queues.get(name)
    return {
        "queue": name,
        "kind": "not in I3TASKS" if known is None else type(known.queue).__name__.removesuffix("Queue").lower(),
        "waiting": read.tries[name, WAITING],
        "oldest_waiting": read.oldest_waiting[name],
        "running": read.tries[name, RUNNING],
        "deferred": read.tries[name, DEFERRED],
        "workers": read.queue_workers[name],
        "is_cut": read.is_cut,
    }


def _cells(queue: dict[str, Any]) -> tuple[Any, ...]:
    return (
        queue["queue"],
        queue["kind"],
        f"{queue['waiting']:,}",
        span(queue["oldest_waiting"]) if queue["waiting"] else "",
        f"{queue['running']:,}",
        f"{queue['deferred']:,}",
        queue["workers"],
    )

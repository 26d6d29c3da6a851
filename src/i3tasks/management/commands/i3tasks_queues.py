"""`i3tasks_queues`, also `i3tasks queues`: the numbers of waiting, running and deferred tries of each queue."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.management.base import CommandParser

from ...conf import get_config
from ...core.clock import current_clock
from ...dashboard.writing import relative, span
from ...store.figures import DEFERRED, MOST_COUNTED, RUNNING, WAITING, Figures, figures
from ..command import RowsCommand, add_json

HEAD = ("queue", "kind", "waiting", "oldest", "running", "put off", "workers", "paused")
CUT = f"Of each state, {MOST_COUNTED:,} rows were counted, those that wait longest first: there are more."


class Command(RowsCommand):
    help = (
        "Show how many tries of each queue wait, run and are put off, how long the oldest has waited, how many "
        "processes run it, and since when and by whom it is paused."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add_json(parser, "Print it as a JSON list.")

    def handle(self, *args: Any, as_json: bool = False, **options: Any) -> None:
        now = current_clock().now()
        read = figures(now)
        queues = [_facts(name, read) for name in sorted(read.queue_workers)]
        if as_json:
            self.write_json(queues)
            return
        self.write_table(HEAD, [_cells(queue, now) for queue in queues])
        if read.is_cut:
            self.stdout.write(CUT)


def _facts(name: str, read: Figures) -> dict[str, Any]:
    known, pause = get_config().queues.get(name), read.paused.get(name)
    return {
        "queue": name,
        "kind": "not in I3TASKS" if known is None else type(known.queue).__name__.removesuffix("Queue").lower(),
        "waiting": read.tries[name, WAITING],
        "oldest_waiting": read.oldest_waiting[name],
        "running": read.tries[name, RUNNING],
        "deferred": read.tries[name, DEFERRED],
        "workers": read.queue_workers[name],
        "paused_at": pause and pause.paused_at,
        "paused_by": pause and pause.paused_by,
        "is_cut": read.is_cut,
    }


def _cells(queue: dict[str, Any], now: datetime) -> tuple[Any, ...]:
    by = f" by {queue['paused_by']}" if queue["paused_by"] else ""
    return (
        queue["queue"],
        queue["kind"],
        f"{queue['waiting']:,}",
        span(queue["oldest_waiting"]) if queue["waiting"] else "",
        f"{queue['running']:,}",
        f"{queue['deferred']:,}",
        queue["workers"],
        relative(queue["paused_at"], now) + by if queue["paused_at"] else "",
    )

"""`i3tasks_workers`, also `i3tasks workers`: list the processes that run tries, dispatch or beat."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.management.base import CommandParser

from ...core.clock import current_clock
from ...dashboard.writing import relative
from ...models import Worker
from ...store.database import rows
from ...store.workers import listed, living_workers
from ..command import RowsCommand, add_json

NONE_LIVES = "No worker lives. `--all` lists those of the last day."
HEAD = (
    *("id", "role", "state", "running", "queues", "version", "release"),
    *("started", "heartbeat", "dispatched", "beat"),
)


class Command(RowsCommand):
    help = "List the processes that run tries, dispatch or beat, as they said at their last heartbeat."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--all", action="store_true", dest="also_gone", help="Also those that stopped or died.")
        add_json(parser, "Print all that is known, as a JSON list.")

    def handle(self, *args: Any, as_json: bool = False, also_gone: bool = False, **options: Any) -> None:
        now = current_clock().now()
        workers = rows(Worker).order_by("id") if also_gone else living_workers(now)
        facts = listed(list(workers), now)
        if as_json:
            self.write_json(facts)
        elif facts:
            has_releases = any(worker["release"] for worker in facts)
            head = [name for name in HEAD if name != "release" or has_releases]
            self.write_table(head, [[_cell(worker, name, now) for name in head] for worker in facts])
        else:
            self.stdout.write("There is none." if also_gone else NONE_LIVES)


def _cell(worker: dict[str, Any], name: str, now: datetime) -> Any:
    match name:
        case "running":
            return f"{worker['running']}/{worker['concurrency']}"
        case "queues":
            return ",".join(worker["queues"])
        case "started" | "heartbeat" | "dispatched" | "beat":
            return relative(worker[f"{name}_at"], now)
    return worker[name]

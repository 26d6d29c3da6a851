"""`i3tasks_health`, also `i3tasks health`: how the task system is doing; exit code 1 when that is critical."""

from __future__ import annotations

import json
import sys
from typing import Any

from asgiref.sync import async_to_sync
from django.core.management.base import CommandParser

from ...core.clock import current_clock
from ...models import TryState
from ...store.health import CRITICAL, health
from ..command import RowsCommand


class Command(RowsCommand):
    help = "Say how the task system is doing, as the health endpoint does. Exit code 1 when it is critical."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", dest="as_json", help="The health endpoint's JSON.")

    def handle(self, *args: Any, as_json: bool = False, **options: Any) -> None:
        report = async_to_sync(health)(current_clock().now())
        self.stdout.write(json.dumps(report, indent=2) if as_json else _readable(report))
        if report["status"] == CRITICAL:
            sys.exit(1)


def _readable(report: dict[str, Any]) -> str:
    return "\n".join(
        [
            report["status"],
            *(f"  {problem}" for problem in report["problems"]),
            "",
            f"Tries asked for in the last {report['window_minutes']} minutes:",
            _line("", TryState.values),
            _line("all tasks", [report["totals"][state] for state in TryState.values]),
            *(_line(task["task_path"], [task[state] for state in TryState.values]) for task in report["by_task"]),
            "",
            f"Running for too long: {report['stuck_running']}. "
            f"The oldest pending try has waited {report['oldest_pending_age_seconds']} s.",
        ]
    )


def _line(name: str, cells: Any) -> str:
    return f"  {name:<40}" + "".join(f"{cell:>9}" for cell in cells)

"""`i3tasks_status`, also `i3tasks status`: what became of executions; exit code 1 when one of them is not known."""

from __future__ import annotations

import sys
from typing import Any

from asgiref.sync import async_to_sync
from django.core.management.base import CommandError, CommandParser

from ...core.clock import current_clock
from ...models import TaskExecution, TaskExecutionTry
from ...store.database import rows
from ...store.status import MOST_TRIES, status
from ..command import RowsCommand, add_json
from ..executions import executions_named, told
from ..filters import named

NOT_FOUND = {"status": "not_found"}


class Command(RowsCommand):
    help = "Say what became of executions: what they wait for, who runs them, how each try ended."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "executions",
            nargs="+",
            metavar="ID",
            help="An execution's id or uuid, or `try:` and the id of a try.",
        )
        add_json(parser, "The status endpoint's JSON; of several, a list.")

    def handle(self, *args: Any, executions: list[str], as_json: bool = False, **options: Any) -> None:
        now = current_clock().now()
        keys = named(executions, now)
        if as_json:
            self._write_json(executions, now)
            return
        is_unknown = False
        for pk in executions_named(keys):
            tries = rows(TaskExecutionTry).filter(task_execution=pk).order_by("-try_number")
            latest = list(reversed(tries.select_related("result").defer("error_traceback")[:MOST_TRIES]))
            for line in told(rows(TaskExecution).get(pk=pk), latest, now):
                self.stdout.write(line)
            is_unknown |= not latest
        if is_unknown:
            sys.exit(1)

    def _write_json(self, executions: list[str], now: Any) -> None:
        reports: list[dict[str, Any]] = []
        for text in executions:
            try:
                reports += [async_to_sync(status)(id=pk) or NOT_FOUND for pk in executions_named(named([text], now))]
            except CommandError:
                reports.append(NOT_FOUND)
        self.write_json(reports[0] if len(reports) == 1 else reports)
        if any(report["status"] in ("unknown", "not_found") for report in reports):
            sys.exit(1)

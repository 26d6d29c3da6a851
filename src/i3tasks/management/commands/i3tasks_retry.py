"""`i3tasks_retry`, also `i3tasks retry`: another try for executions that have failed."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from ...clock import SYSTEM_CLOCK
from ...engine.launch import launch
from ...store.revive import revive
from ..executions import execution_named


class Command(BaseCommand):
    help = "Give executions that have failed, or were cancelled, one more try, by id or uuid."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("executions", nargs="+", metavar="ID_OR_UUID")

    def handle(self, *args: Any, executions: list[str], **options: Any) -> None:
        found = [execution_named(text) for text in executions]
        tries = revive([execution.pk for execution in found], now=SYSTEM_CLOCK.now())
        launch(tries)
        revived = {task_try.task_execution_id: task_try.try_number for task_try in tries}
        for execution in found:
            number = revived.get(execution.pk)
            self.stdout.write(f"{execution}: " + (f"try {number}" if number else "left alone, it has not failed"))

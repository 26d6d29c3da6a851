"""`i3tasks_cancel`, also `i3tasks cancel`: call off executions."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from ...engine.launch import launch
from ...models import TaskExecution
from ...store.cancel import cancel
from ..executions import execution_named


class Command(BaseCommand):
    help = "Cancel executions by id or uuid: what waits never runs, what runs is told within a heartbeat."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("executions", nargs="+", metavar="ID_OR_UUID")

    def handle(self, *args: Any, executions: list[str], **options: Any) -> None:
        found = [execution_named(text) for text in executions]
        launch(cancel([execution.pk for execution in found]))
        for execution in found:
            execution.refresh_from_db()
            self.stdout.write(f"{execution}: {_state(execution)}")


def _state(execution: TaskExecution) -> str:
    return execution.outcome or "running, and told to stop"

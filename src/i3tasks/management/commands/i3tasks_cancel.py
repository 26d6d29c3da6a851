"""`i3tasks_cancel`, also `i3tasks cancel`: call off executions."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...engine.launch import launch
from ...models import TaskExecution
from ...store.cancel import cancel
from ...store.database import rows


class Command(BaseCommand):
    help = "Cancel executions by id or uuid: what waits never runs, what runs is told within a heartbeat."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("executions", nargs="+", metavar="ID_OR_UUID")

    def handle(self, *args: Any, executions: list[str], **options: Any) -> None:
        found = [_execution(text) for text in executions]
        launch(cancel([execution.pk for execution in found]))
        for execution in found:
            execution.refresh_from_db()
            self.stdout.write(f"{execution}: {_state(execution)}")


def _execution(text: str) -> TaskExecution:
    try:
        by: dict[str, Any] = {"pk": int(text)} if text.isdigit() else {"uuid": UUID(text)}
    except ValueError:
        raise CommandError(f"{text!r} is neither an id nor a uuid.") from None
    execution = rows(TaskExecution).filter(**by).first()
    if execution is None:
        raise CommandError(f"There is no execution {text}.")
    return execution


def _state(execution: TaskExecution) -> str:
    return execution.outcome or "running, and told to stop"

"""The base of the commands that pause and resume queues."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import Any, ClassVar

from django.core.management.base import CommandError, CommandParser

from ..exceptions import StoreUnavailable, UnknownQueueError
from ..store.database import atomic
from .command import RowsCommand, add_json


class PausingCommand(RowsCommand):
    """Changes the queues that are named: all of them, or none if one is unknown."""

    change: ClassVar[Callable[..., bool]]
    done: ClassVar[str]
    undone: ClassVar[str]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("queues", nargs="+", metavar="QUEUE", help="The name of a queue in I3TASKS.")
        parser.add_argument("--by", metavar="NAME", help="Who does it, for the log and the health report. (your login)")
        add_json(parser, "Print what was done as JSON.")

    def handle(self, *args: Any, queues: list[str], as_json: bool = False, **options: Any) -> None:
        if not all(queues):
            raise CommandError("A queue's name is empty. Is a variable of the shell unset?", returncode=2)
        by = options["by"] if options.get("by") is not None else _login()
        with atomic(savepoint=True):
            changed = [{"queue": queue, "changed": self._changed(queue, by)} for queue in queues]
        if as_json:
            self.write_json(changed)
            return
        for one in changed:
            self.stdout.write(f"{one['queue']}: {self.done if one['changed'] else self.undone}")

    def _changed(self, queue: str, by: str) -> bool:
        try:
            return self.change(queue, by=by)
        except (UnknownQueueError, StoreUnavailable) as error:
            raise CommandError(str(error)) from error


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user has no name
        return ""

"""`i3tasks_stack`, also `i3tasks stack`: where the body of a running execution is just now."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...core.clock import current_clock
from ...dashboard.writing import instant
from ...exceptions import StoreUnavailable
from ...models import TaskExecutionTry, TryState
from ...store.database import rows
from ...store.stacks import ask, request_of, why_not
from ..acting import who
from ..command import RowsCommand, add_json
from ..executions import executions_named
from ..filters import named

LOOK_SECONDS = 0.5


class Command(RowsCommand):
    help = (
        "Ask the worker that runs an execution where its body is: files, lines and functions, never values. Exit code "
        "1 when no stack comes, because it does not run or its worker is gone."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("execution", metavar="ID", help="Its id or uuid, or `try:` and the id of a try.")
        parser.add_argument(
            "--timeout", type=float, default=60.0, metavar="SECONDS", help="How long to wait for it. (%(default)g)"
        )
        add_json(parser, "Print it as a JSON object.")

    def handle(self, *args: Any, execution: str, timeout: float = 60.0, as_json: bool = False, **options: Any) -> None:
        now = current_clock().now()
        ids = executions_named(named([execution], now))
        if len(ids) != 1:
            raise CommandError("Name one execution, by its id or uuid.", returncode=2)
        tries = rows(TaskExecutionTry).filter(task_execution=ids[0]).order_by("-try_number")
        latest = tries.defer("error_traceback").first()
        if latest is None or TryState.of(latest) is not TryState.RUNNING:
            raise CommandError(f"It is not running, so there is no stack to take: see `i3tasks status {ids[0]}`.")
        try:
            ask(latest.pk, by=who(), now=now)
        except StoreUnavailable as error:
            raise CommandError(str(error)) from error
        deadline = time.monotonic() + timeout
        while True:
            latest = tries.defer("error_traceback").get(pk=latest.pk)
            found, why = request_of(latest), ""
            if found is not None:
                why = why_not(found, latest, current_clock().now())
                if found.taken_at is not None and not why:
                    break
            is_over = found is None or found.taken_at is not None or TryState.of(latest) is not TryState.RUNNING
            is_over |= latest.lease_until is not None and latest.lease_until < current_clock().now()
            if is_over or time.monotonic() >= deadline:
                raise CommandError(why or "The request is gone: the rows were deleted.")
            time.sleep(LOOK_SECONDS)
        if as_json:
            facts = {"execution": ids[0], "try": latest.pk, "worker": latest.worker_id}
            self.write_json({**facts, "taken_at": found.taken_at, "stack": found.stack})
            return
        self.stdout.write(f"execution {ids[0]} on {latest.worker_id}, {instant(found.taken_at)}:")
        self.stdout.write(found.stack)

"""`i3tasks_run`, also `i3tasks run`: run one execution here, in this process."""

from __future__ import annotations

import pdb
import sys
import traceback
from typing import Any

from asgiref.sync import async_to_sync
from django.core.management.base import CommandError, CommandParser

from ...core.clock import current_clock
from ...engine.inline import run_try
from ...engine.launch import launch_refs
from ...exceptions import I3TasksError
from ...models import TaskExecution, TaskExecutionTry
from ...store.bulk import Act, slices
from ...store.cancel import UNIQUE_IS_UNFINISHED, retry_failed
from ...store.database import rows
from ...store.requests import TryRef
from ...store.search import Search
from ...store.states import UNCLAIMED_TRY, State, state_of, telling_of
from ...store.status import status
from ..command import RowsCommand, add_json
from ..events import show_events
from ..executions import executions_named, told
from ..filters import named

OVER = (State.FAILED, State.CANCELLED, State.LOST)


class Command(RowsCommand):
    help = (
        "Run one execution here, in this process, with the lease, the retries and the record that it has in a worker. "
        "One that was put off is run at once; one that failed or was cancelled gets one more try. Exit code 1 when it "
        "fails, or can't be run."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("execution", metavar="ID", help="Its id or uuid, or `try:` and the id of a try.")
        add_json(parser, "What became of it, as the status endpoint's JSON.")
        parser.add_argument("--pdb", action="store_true", help="Open the debugger where the body raises an error.")

    def handle(self, *args: Any, execution: str, verbosity: int = 1, as_json: bool = False, **options: Any) -> None:
        show_events(verbosity)
        ids = executions_named(named([execution], current_clock().now()))
        if len(ids) != 1:
            raise CommandError("Name one execution, by its id or uuid.", returncode=2)
        due: list[TryRef] = []
        try:
            report = async_to_sync(run_try)(_try_to_run(ids[0]), due.extend)
        except I3TasksError as error:
            raise CommandError(str(error)) from error
        launch_refs(due)
        if as_json:
            self.write_json(async_to_sync(status)(id=ids[0]))
        else:
            self._tell(ids[0])
        if report.error is not None:
            if verbosity:
                self.stderr.write("".join(traceback.format_exception(report.error)))
            if options["pdb"]:
                pdb.post_mortem(report.error.__traceback__)
            sys.exit(1)

    def _tell(self, execution_id: int) -> None:
        tries = rows(TaskExecutionTry).filter(task_execution=execution_id).order_by("try_number")
        light = list(tries.select_related("result").defer("error_traceback"))
        for line in told(rows(TaskExecution).get(pk=execution_id), light, current_clock().now()):
            self.stdout.write(line)


def _try_to_run(execution_id: int) -> TaskExecutionTry:
    """The execution's waiting try, made due, or one more try. Raises CommandError if there is nothing to run."""
    now = current_clock().now()
    execution = rows(TaskExecution).get(pk=execution_id)
    tries = rows(TaskExecutionTry).filter(task_execution=execution_id)
    latest = telling_of(list(tries.defer("error_traceback")))
    state = state_of(execution, latest, now)
    if latest is not None and state is State.LOST and execution.outcome is None:
        raise CommandError(
            f"Its worker {latest.worker_id} is lost, and a dispatcher is about to end its try. Run it after that."
        )
    if latest is not None and state is State.RUNNING:
        raise CommandError(f"It is running, on {latest.worker_id}. Wait for its end, or cancel it first.")
    if state in OVER:
        if retry_failed([execution_id], now=now).taken:
            raise CommandError(UNIQUE_IS_UNFINISHED)
    elif state in (State.DEFERRED, State.RETRYING):
        # The try is made due but not launched, so that no worker hears of it.
        list(slices(Search.parse({"id": str(execution_id)}, now), Act.RUN_NOW, now=now))
    elif state is not State.WAITING:
        raise CommandError(f"There is nothing to run: it is {state.value if state else 'without a try'}.")
    waiting = tries.filter(UNCLAIMED_TRY).select_related("task_execution").first()
    if waiting is None:
        raise CommandError(f"A worker has just taken it: follow it by `i3tasks status {execution_id}`.")
    return waiting

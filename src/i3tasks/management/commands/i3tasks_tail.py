"""`i3tasks_tail`, also `i3tasks tail`: what happens to executions, as it happens."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.utils import timezone

from ...core.clock import current_clock
from ...dashboard.lines import duration_of, queue_of, wait_of
from ...dashboard.writing import instant, span
from ...store.live_events import ASKED, FAILED, Following, Happening
from ..command import RowsCommand
from ..executions import listed
from ..filters import add_filters, search_of
from ..tables import plain

MOST_LINES = 200
"""For each look. What happened earlier is counted only."""


class Command(RowsCommand):
    help = (
        "Show what happens to executions until Ctrl-C: each try when it is asked for, begins and ends, as the rows "
        "say. One that begins and ends between two looks has one line, for its end."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        add_filters(parser)
        parser.add_argument(
            "--interval", type=float, default=1.0, metavar="SECONDS", help="The time between two looks. (%(default)s)"
        )
        parser.add_argument("--json", action="store_true", dest="as_json", help="Print a JSON object a line.")

    def handle(self, *args: Any, interval: float = 1.0, as_json: bool = False, **options: Any) -> None:
        if not 0.1 <= interval <= 3600:
            raise CommandError(f"--interval must be from 0.1 to 3600 seconds, not {interval:g}.", returncode=2)
        clock = current_clock()
        following = Following(search_of(options, clock.now()), clock.now())
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(interval)
                self._show(following.look(clock.now()), as_json)

    def _show(self, happenings: Sequence[Happening], as_json: bool) -> None:
        left_out, shown = happenings[:-MOST_LINES], happenings[-MOST_LINES:]
        if left_out and not as_json:
            self.stdout.write(f"... and {len(left_out):,} earlier ones")
        now = current_clock().now()
        errors = _errors(shown, now)
        for happening in happenings if as_json else shown:
            told = _facts(happening, errors, now)
            self.stdout.write(json.dumps(told, cls=DjangoJSONEncoder) if as_json else _line(happening, told))
        self.stdout.flush()


def _errors(happenings: Sequence[Happening], now: datetime) -> dict[int, str]:
    """The texts of the errors, by the ids of executions."""
    failed = [one.task_try.task_execution_id for one in happenings if one.kind == FAILED]
    return {line.execution.pk: line.error for line in listed(failed, now)}


def _facts(happening: Happening, errors: dict[int, str], now: datetime) -> dict[str, Any]:
    one, execution = happening.task_try, happening.task_try.task_execution
    is_over, has_begun = one.finished_at is not None, happening.kind != ASKED
    wait = wait_of(one, now) if has_begun else None
    duration = duration_of(one, now) if is_over and has_begun else None
    return {
        "event": happening.kind,
        "at": happening.at,
        "task": f"{execution.task_path}.{execution.task_name}",
        "execution": execution.pk,
        "uuid": execution.uuid,
        "try": one.try_number,
        "queue": queue_of(execution),
        "run_after": None if has_begun else one.run_after,
        "wait": None if wait is None else wait.total_seconds(),
        "duration": None if duration is None else duration.total_seconds(),
        "worker": one.worker_id if has_begun else None,
        "error_class": one.error_class if happening.kind == FAILED else None,
        "error": (errors.get(execution.pk) or None) if happening.kind == FAILED else None,
    }


def _line(happening: Happening, told: dict[str, Any]) -> str:
    at = timezone.localtime(happening.at)
    parts = [f"execution {told['execution']}", f"try {told['try']}", told["queue"]]
    parts += [f"after {instant(told['run_after'])}"] if told["run_after"] else []
    parts += [f"waited {span(told['wait'])}"] if told["wait"] is not None else []
    parts += [f"took {span(told['duration'])}"] if told["duration"] is not None else []
    parts += [f"on {told['worker']}"] if told["worker"] else []
    error = ": ".join(filter(None, [(told["error_class"] or "").rpartition(".")[2], told["error"]]))
    line = f"{at:%H:%M:%S}.{at.microsecond // 1000:03d} {happening.kind:<9} {told['task']} ({', '.join(parts)})"
    return plain(f"{line}: {error}" if error else line)

"""`i3tasks_clean`, also `i3tasks clean`: delete finished executions that are old."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...core.clock import current_clock
from ...store.ages import Ages
from ...store.retention import BATCH, LARGEST_BATCH, clean, old_executions
from ...types.retention import LONGEST
from ..command import RowsCommand

WIDTH = 36


class Command(RowsCommand):
    help = "Delete finished executions that are old, with their tries and results. Unfinished ones always stay."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--days",
            type=float,
            metavar="F",
            help="How long ago ended, where I3TASKS has `retention`; else how long ago created. (as I3TASKS says)",
        )
        parser.add_argument(
            "--failed-days",
            type=float,
            metavar="F",
            help="The same for those that failed. (as I3TASKS says, else as the others)",
        )
        parser.add_argument(
            "--batch-size",
            type=int,
            default=BATCH,
            metavar="N",
            help=f"How many go in one transaction, up to {LARGEST_BATCH}. (%(default)s)",
        )
        parser.add_argument("--queue", default="", metavar="QUEUE", help="Only executions of this queue. (all queues)")
        parser.add_argument("--dry-run", action="store_true", help="Only count.")

    def handle(self, *args: Any, dry_run: bool = False, **options: Any) -> None:
        older_than, failed = _age("--days", options["days"]), _age("--failed-days", options["failed_days"])
        ages = Ages.of(older_than, failed, options["queue"])
        if ages is None:
            raise CommandError("How old is old? Pass --days, or set retention in I3TASKS.")
        now = current_clock().now()
        old = old_executions(ages, now)
        if dry_run:
            self.stdout.write(f"[dry-run] {old.count()} TaskExecution rows would be deleted.")
            return
        bar = _Bar(self.stdout, old.count()) if self.stdout.isatty() else None
        cleaned = clean(ages, _positive("--batch-size", options["batch_size"]), now=now, progress=bar)
        if bar is not None:
            self.stdout.write()
        self.stdout.write(f"Deleted {cleaned.executions} TaskExecution rows.")
        if cleaned.groups or cleaned.ticks:
            self.stdout.write(f"Also {cleaned.groups} TaskGroup rows and {cleaned.ticks} ScheduleTick rows.")


class _Bar:
    """A progress bar on a terminal."""

    def __init__(self, stream: Any, total: int) -> None:
        self._stream = stream
        self._total = total

    def __call__(self, done: int) -> None:
        filled = WIDTH * min(done, self._total) // max(self._total, 1)
        bar = "#" * filled + "-" * (WIDTH - filled)
        self._stream.write(f"\r\033[K[{bar}] {done} of {self._total}", ending="")
        self._stream.flush()


def _age(option: str, days: float | None) -> timedelta | None:
    if days is None:
        return None
    if not 0 <= days <= LONGEST.days:
        raise CommandError(f"{option} must be from 0 to {LONGEST.days}, not {days:g}.")
    return timedelta(days=days)


def _positive(option: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise CommandError(f"{option} must be at least 1, not {value}.")
    return value

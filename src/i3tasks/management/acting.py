"""Commands that do something to executions: those that are named, or all that a filter finds."""

from __future__ import annotations

import getpass
import socket
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ..core.clock import current_clock
from ..engine.bulk import Progress, act_on_all
from ..store.bulk import Act, narrowed
from ..store.search import Count, Search
from .command import RowsCommand, add_json
from .executions import HEAD, cells, executions_named, listed
from .filters import add_filters, search_of

SHOWN = 10
NEEDS_A_FILTER = "Which executions? Name them by their ids or uuids, or choose them, as by --state failed --asked 2h."


class ActCommand(RowsCommand):
    """Does `act` to executions."""

    act: Act
    done: str
    """The words after the number of executions that it was done to."""
    asks_always = False
    """Whether it asks for confirmation even if the executions are named by ids."""

    def add_arguments(self, parser: CommandParser) -> None:
        add_filters(parser)
        self.add_time(parser)
        parser.add_argument("--dry-run", action="store_true", help="Only say how many, and show some of them.")
        parser.add_argument("--yes", action="store_true", help="Don't ask.")
        add_json(parser, "Print what was done as a JSON object. Asks nothing, so it needs --yes where it would ask.")

    def add_time(self, parser: CommandParser) -> None:
        """Declare the option for the time that the act needs, if it needs one."""

    def until(self, options: Mapping[str, Any], now: datetime) -> datetime | None:
        """The time that the option names. Raises CommandError."""
        return None

    def handle(self, *args: Any, as_json: bool = False, **options: Any) -> None:
        now = current_clock().now()
        asked, until = search_of(options, now), self.until(options, now)
        if asked == Search():
            raise CommandError(NEEDS_A_FILTER, returncode=2)
        named = [] if asked.keys is None else executions_named(asked.keys)
        search = narrowed(asked, self.act)
        count = search.count(now)
        if options.get("dry_run"):
            self._show(search, count, as_json)
            return
        if (not named or self.asks_always) and count.number and not options.get("yes"):
            self._confirm(count, search, as_json)
        progress = self._carry_out(search, count, until, has_bar=not as_json and options.get("verbosity", 1) > 0)
        if as_json:
            self.write_json(_told(self.act, search, progress))
        else:
            self._tell(named, progress)
        if progress.skipped:
            sys.exit(1)

    def _show(self, search: Search, count: Count, as_json: bool) -> None:
        now = current_clock().now()
        if as_json:
            self.write_json({"act": self.act.value, "filter": str(search), "count": count.number, "dry_run": True})
            return
        self.stdout.write(f"[dry-run] {_number(count)} would be {self.done}: {search}")
        if found := listed(search.ids(now, most=SHOWN), now):
            self.write_table(HEAD, [cells(line, now) for line in found])

    def _confirm(self, count: Count, search: Search, as_json: bool) -> None:
        question = f"{_number(count)} will be {self.done}: {search}"
        if as_json or not sys.stdin.isatty():
            raise CommandError(f"{question}\nPass --yes, or --dry-run to see some of them.", returncode=2)
        if input(f"{question}\nGo on? [y/N] ").strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was changed.")

    def _carry_out(self, search: Search, count: Count, until: datetime | None, *, has_bar: bool) -> Progress:
        progress = Progress()
        is_shown = has_bar and count.is_cut and self.stdout.isatty()
        for progress in act_on_all(search, self.act, by=who(), until=until):
            if is_shown:
                self.stdout.write(f"\r{progress.done:,} {self.done} ...", ending="")
                self.stdout.flush()
        if is_shown:
            self.stdout.write("\r\033[K", ending="")
        return progress

    def _tell(self, named: list[int], progress: Progress) -> None:
        now = current_clock().now()
        for line in listed(named, now):
            self.stdout.write(f"{line.execution} ({line.execution.uuid}): {line.state}")
        self.stdout.write(f"{_number(Count(progress.done))} {'was' if progress.done == 1 else 'were'} {self.done}.")
        for reason, number in progress.skipped.most_common():
            self.stdout.write(f"{number:,} left alone: {reason}.")


def _number(count: Count) -> str:
    return f"{count} {'execution' if count == Count(1) else 'executions'}"


def _told(act: Act, search: Search, progress: Progress) -> dict[str, Any]:
    return {"act": act.value, "filter": str(search), "done": progress.done, "skipped": dict(progress.skipped)}


def who() -> str:
    """The user and the host that run the command."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        user = "?"
    return f"{user}@{socket.gethostname()[:100]}"

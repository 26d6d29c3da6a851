"""`i3tasks_list`, also `i3tasks list`: the executions that a filter finds, newest first."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...core.clock import current_clock
from ...dashboard.lines import lines
from ...exceptions import SearchError
from ...store.search import MOST_COUNTED, MOST_LOOKED_AT, Search
from ..command import RowsCommand, add_json
from ..executions import HEAD, cells, facts
from ..filters import add_filters, search_of

LINES = 50


class Command(RowsCommand):
    help = "List executions, newest first: all of them, or those that match every option that is given."

    def add_arguments(self, parser: CommandParser) -> None:
        add_filters(parser)
        parser.add_argument(
            "--limit", type=int, default=LINES, metavar="N", help="How many to list, up to 10,000. (%(default)s)"
        )
        parser.add_argument("--after", default="", metavar="PLACE", help="Go on from the place that a list printed.")
        parser.add_argument("--count", action="store_true", help="Only count them, up to 10,000.")
        add_json(parser, "Print all that is known of them as a JSON list; with --count, as an object.")

    def handle(self, *args: Any, limit: int = LINES, as_json: bool = False, **options: Any) -> None:
        if not 1 <= limit <= MOST_COUNTED:
            raise CommandError(f"--limit must be from 1 to {MOST_COUNTED}, not {limit}.", returncode=2)
        now = current_clock().now()
        search = search_of(options, now)
        if options.get("count"):
            self._count(search, as_json)
            return
        try:
            page = search.page(now, limit=limit, after=options.get("after", ""))
        except SearchError as error:
            raise CommandError(f"--after: {error}", returncode=2) from None
        found = lines(page.rows, now, with_texts=True)
        if as_json:
            self.write_json([facts(line) for line in found])
            return
        if found:
            self.write_table(HEAD, [cells(line, now) for line in found])
        elif not page.is_cut:
            self.stdout.write("None matches.")
        if page.is_cut:
            self.stdout.write(
                f"{MOST_LOOKED_AT:,} more executions were looked at: --after {page.following} looks further."
            )
        elif page.following:
            self.stdout.write(f"There are more, of {search.count(now)}: --limit N, or --after {page.following}.")

    def _count(self, search: Search, as_json: bool) -> None:
        count = search.count(current_clock().now())
        if as_json:
            self.write_json({"count": count.number, "is_exact": not count.is_cut})
        else:
            self.stdout.write(str(count))

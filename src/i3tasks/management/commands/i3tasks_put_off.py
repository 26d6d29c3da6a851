"""`i3tasks_put_off`, also `i3tasks put-off`: let executions that wait begin later."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ...exceptions import SearchError
from ...store.bulk import Act
from ...store.pauses import ASIDE_FROM
from ...store.search_terms import age
from ..acting import ActCommand


class Command(ActCommand):
    help = (
        "Let executions that wait not begin before a time from now, by id or all that a filter finds. Those that "
        "are due later anyway stay as they are. Exit code 1 when one of them does not wait."
    )
    act = Act.PUT_OFF
    done = "put off"

    def add_time(self, parser: CommandParser) -> None:
        parser.add_argument("--by", required=True, metavar="TIME", help="How long from now: 90s, 30m, 2h, 7d or 1d12h.")

    def until(self, options: Mapping[str, Any], now: datetime) -> datetime | None:
        try:
            until = now + age(options["by"])
        except SearchError as error:
            raise CommandError(f"--by: {error}", returncode=2) from None
        except OverflowError:
            until = ASIDE_FROM
        if until >= ASIDE_FROM:
            raise CommandError(f"--by: Nothing can be put off beyond the year {ASIDE_FROM.year - 1}.", returncode=2)
        return until

"""The base of the commands: errors of the database in a sentence, silence on request, and output that fits."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DatabaseError, InterfaceError, OperationalError

from ..store.database import is_unmigrated, missing_tables
from .tables import table, width_of

MISSING = "The database shows no {tables}, though their migrations are recorded as applied: is it the right one?"
UNMIGRATED = "The database lacks tables or columns of i3tasks: run `manage.py migrate` first."
REFUSED = frozenset({"25006", "42501"})
"""PostgreSQL's states of a write in a read-only transaction, and of a right that is not granted."""


class _Nowhere(io.TextIOBase):
    """A stream that discards its output."""

    def write(self, text: str) -> int:
        return len(text)


class RowsCommand(BaseCommand):
    """A command that reads or writes rows of i3tasks and ends. With `--verbosity 0` it prints no result."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        if options.get("verbosity") == 0:
            options["stdout"] = _Nowhere()
        try:
            return super().execute(*args, **options)
        except (DatabaseError, InterfaceError) as error:
            said = _in_words(error)
            if said is None:
                raise
            raise CommandError(said) from error

    def write_json(self, value: Any) -> None:
        """Print as JSON."""
        self.stdout.write(json.dumps(value, indent=2, cls=DjangoJSONEncoder))

    def write_table(self, head: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
        """Print as a table that fits the terminal."""
        self.stdout.write(table(head, lines, width_of(self.stdout)))


def add_json(parser: CommandParser, help_text: str) -> None:
    """Declare `--json`."""
    parser.add_argument("--json", action="store_true", dest="as_json", help=help_text)


def _in_words(error: Exception) -> str | None:
    """The sentence for an error of the database; None for an error that is a bug of i3tasks."""
    with suppress(Exception):  # it may be away altogether
        if is_unmigrated():
            return UNMIGRATED
        if missing := missing_tables():
            return MISSING.format(tables=", ".join(missing))
    if getattr(error.__cause__, "sqlstate", None) in REFUSED:
        return f"The database refused: {' '.join(str(error).split())}"
    if isinstance(error, OperationalError | InterfaceError):
        return f"The database gave no answer: {' '.join(str(error).split())}"
    return None

"""The filter of executions as command-line options; the same as the board's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser

from ..exceptions import SearchError
from ..store.search import Search
from ..store.search_terms import Keys
from ..store.states import State

OPTIONS = {
    "state": ("STATE", f"{', '.join(State.values)}; several with commas, or the option again."),
    "task": ("TASK", "The task, as shop.tasks.send_email or send_email."),
    "queue": ("QUEUE", "The name of the queue."),
    "asked": ("TIME", "When it was asked for: 2h (in the last two hours), 2026-11-28.., ..7d, 2h..30m."),
    "finished": ("TIME", "When it ended, in the same form."),
    "argument": ("TEXT", "A text in its arguments. Those of tasks with sensitive arguments are not looked into."),
    "error": ("CLASS", "The class of an error of one of its tries, as ValueError or shop.errors.CardDeclined."),
    "min_tries": ("N", "How many of its tries have begun, at least."),
}


def add_filters(parser: CommandParser) -> None:
    """Declare the options, and the IDs."""
    parser.add_argument(
        "executions", nargs="*", metavar="ID", help="An execution's id or uuid, or `try:` and the id of a try."
    )
    for name, (metavar, text) in OPTIONS.items():
        parser.add_argument(_option(name), action="append", metavar=metavar, help=text)


def search_of(options: Mapping[str, Any], now: datetime) -> Search:
    """The search that the options describe. Raises CommandError."""
    fields = {name: options.get(name) or () for name in OPTIONS}
    try:
        return Search.parse({**fields, "id": options.get("executions") or ()}, now)
    except SearchError as error:
        option = "" if error.field == "id" else f"{_option(error.field)}: "
        raise CommandError(f"{option}{error}", returncode=2) from None


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def named(texts: list[str], now: datetime) -> Keys:
    """The executions that these IDs name. Raises CommandError."""
    keys = search_of({"executions": texts}, now).keys
    assert keys is not None
    return keys

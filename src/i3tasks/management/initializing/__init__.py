"""`i3tasks init`: adds i3tasks to a Django project. No management command, because the app is not installed yet."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from django.core.exceptions import ImproperlyConfigured

from ..file_changes import is_wanted
from .planning import plan

SETTINGS = "DJANGO_SETTINGS_MODULE"
NEXT = """Next:
    i3tasks dev --migrate
"""
CALL = """Then, in another terminal, `python manage.py shell`:
    from {module} import greet
    greet.delay("Ada")"""
DECORATE = """{module} was there already: put @task above a function of it (from i3tasks import task)."""


def main(argv: Sequence[str]) -> int:
    """Show what would change, ask, and write it. Returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        changes, tasks = plan(options.settings or os.environ[SETTINGS])
    except ImproperlyConfigured as error:
        _say(str(error), sys.stderr)
        return 1
    if not changes:
        _say("This project has i3tasks already: nothing to do.")
        return 0
    _say("\n".join(change.diff() for change in changes))
    if not options.yes and not is_wanted():
        _say("Nothing was written. `i3tasks init --yes` writes it without asking.", sys.stderr)
        return 1
    for change in changes:
        try:
            change.write()
        except OSError as error:
            _say(f"{change.name} can't be written: {error}. Mend that, and run `i3tasks init` again.", sys.stderr)
            return 1
    then = (DECORATE if tasks.was_there else CALL).format(module=tasks.module)
    _say(f"Wrote {', '.join(change.name for change in changes)}. {NEXT}{then}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="i3tasks init",
        description="Add i3tasks to this Django project: app, settings, URLs, and a first task. Shows the difference "
        "and asks before it writes.",
    )
    parser.add_argument("--yes", action="store_true", help="write without asking")
    parser.add_argument("--settings", metavar="MODULE", help="the settings to change (those that manage.py names)")
    return parser


def _say(text: str, stream: TextIO | None = None) -> None:
    (stream or sys.stdout).write(f"{text}\n")

"""`i3tasks doctor`: the remaining steps in a project, above all after django-i3tasks.

No management command, because it is needed most where the project does not start yet.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from ..file_changes import FileChange, is_wanted
from .findings import Finding
from .project import findings_of_project
from .sources import changes, findings_of_sources

SETTINGS = "DJANGO_SETTINGS_MODULE"


def main(argv: Sequence[str]) -> int:
    """Say what is found; with --fix, show and write what can be changed by a machine. Returns the exit code."""
    options = _parser().parse_args(argv)
    if options.settings:
        os.environ[SETTINGS] = options.settings
    here = Path.cwd()
    if options.fix:
        found = changes(here)
        if not found:
            _say("There is nothing that can be changed by a machine.")
        elif not _write(found, yes=options.yes):
            return 1
    findings = findings_of_sources(here)
    # The project is asked only when its sources are in order: it would fail with what they say better.
    findings = findings or findings_of_project()
    for finding in findings:
        _say(str(finding))
    _say(_summary(findings))
    return 1 if findings else 0


def _write(found: Sequence[FileChange], *, yes: bool) -> bool:
    _say("\n".join(change.diff() for change in found))
    if not yes and not is_wanted():
        _say("Nothing was written. `i3tasks doctor --fix --yes` writes it without asking.", sys.stderr)
        return False
    for change in found:
        change.write()
    _say(f"Wrote {', '.join(change.name for change in found)}.")
    return True


def _summary(findings: Sequence[Finding]) -> str:
    if not findings:
        return "Nothing is left to do."
    fixable = sum(finding.can_be_fixed for finding in findings)
    said = f"{len(findings)} to mend."
    return f"{said} {fixable} of them by `i3tasks doctor --fix`, which shows the difference first." if fixable else said


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="i3tasks doctor",
        description="Say what is left to do in this Django project: names of django-i3tasks, settings, URLs, tokens, "
        "migrations. Exit code 0: nothing.",
    )
    parser.add_argument("--fix", action="store_true", help="change what a machine can, after showing the difference")
    parser.add_argument("--yes", action="store_true", help="with --fix: write without asking")
    parser.add_argument("--settings", metavar="MODULE", help="the project's settings (those that manage.py names)")
    return parser


def _say(text: str, stream: TextIO | None = None) -> None:
    (stream or sys.stdout).write(f"{text}\n")

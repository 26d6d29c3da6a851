"""`i3tasks`: short names for the management commands.

    i3tasks run-worker --concurrency 100
    i3tasks emulator
    i3tasks ensure-pubsub --dry-run

Run it in the project's folder. The settings are those of DJANGO_SETTINGS_MODULE, of `--settings`, or the ones that
`manage.py` names.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

COMMANDS = {
    "run-worker": ("i3tasks_worker", "run the tasks of pull queues"),
    "beat": ("i3tasks_beat", "enqueue schedules and publish what is due, without running tasks"),
    "dispatch": ("i3tasks_dispatch", "publish what is due, without running tasks"),
    "cancel": ("i3tasks_cancel", "call off executions"),
    "retry": ("i3tasks_retry", "give failed executions one more try"),
    "audit": ("i3tasks_audit", "check that every row adds up"),
    "ensure-pubsub": ("i3tasks_ensure_pubsub", "create and update topics and subscriptions"),
    "health": ("i3tasks_health", "say how the task system is doing"),
    "status": ("i3tasks_status", "say what became of one execution"),
    "clean": ("i3tasks_clean", "delete finished executions that are old"),
}
SETTINGS = "DJANGO_SETTINGS_MODULE"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name == "--version":
        from . import __version__

        print(__version__)
        return 0
    if name == "emulator":
        return _run_emulator(rest)
    if name not in COMMANDS:
        print(f"i3tasks has no command {name!r}.\n\n{_usage()}", file=sys.stderr)
        return 2
    return _run_management_command(COMMANDS[name][0], rest)


def _run_emulator(arguments: list[str]) -> int:
    """Needs no Django project, unless it is to have the project's topics and subscriptions (`--seed settings`)."""
    from .emulator import main as emulator

    if ("--seed", "settings") not in pairwise(arguments):
        return emulator(arguments)
    if not _finds_project([]):
        return 2
    from .management.seeding import with_seed_file

    with with_seed_file(arguments) as seeded:
        return emulator(seeded)


def _run_management_command(command: str, arguments: list[str]) -> int:
    if not _finds_project(arguments):
        return 2
    from django.core.management import execute_from_command_line

    execute_from_command_line(["i3tasks", command, *arguments])
    return 0


def _finds_project(arguments: Sequence[str]) -> bool:
    sys.path.insert(0, os.getcwd())
    if _has_settings(arguments):
        return True
    print(
        f"Which Django project? Run this in the folder of manage.py, or set {SETTINGS}, or pass --settings.",
        file=sys.stderr,
    )
    return False


def _has_settings(arguments: Sequence[str]) -> bool:
    if any(argument == "--settings" or argument.startswith("--settings=") for argument in arguments):
        return True
    if not os.environ.get(SETTINGS):
        named = _named_in_manage_py()
        if named is None:
            return False
        os.environ[SETTINGS] = named
    return True


def _named_in_manage_py() -> str | None:
    try:
        text = Path("manage.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"{SETTINGS}['\"]\s*,\s*['\"]([\w.]+)['\"]", text)
    return found and found[1]


def _usage() -> str:
    commands = {
        "emulator": "run a local Pub/Sub for development",
        **{name: text for name, (_, text) in COMMANDS.items()},
    }
    lines = [f"  {name:<14} {text}" for name, text in commands.items()]
    return "\n".join(["usage: i3tasks COMMAND [OPTIONS]", "", *lines, "", "i3tasks COMMAND --help shows its options."])

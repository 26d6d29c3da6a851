"""`i3tasks`: short names for the management commands.

    i3tasks run-worker --concurrency 100
    i3tasks emulator
    i3tasks ensure-pubsub --dry-run

Run it in the project's folder. The settings come from DJANGO_SETTINGS_MODULE, from `--settings`, or from `manage.py`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

COMMANDS = {
    "dev": ("i3tasks_dev", "run web server, worker, beat and emulator on a laptop"),
    "run-worker": ("i3tasks_worker", "run the tasks of pull queues"),
    "beat": ("i3tasks_beat", "enqueue schedules and publish due tries, without running tasks"),
    "dispatch": ("i3tasks_dispatch", "publish due tries, without running tasks"),
    "list": ("i3tasks_list", "list executions by state, task, queue, time, argument or error"),
    "status": ("i3tasks_status", "say what became of executions, and of each of their tries"),
    "tail": ("i3tasks_tail", "show what happens to executions, as it happens"),
    "queues": ("i3tasks_queues", "show the waiting, running and deferred tries of each queue"),
    "workers": ("i3tasks_workers", "list the processes that run, dispatch or beat"),
    "stack": ("i3tasks_stack", "say where the body of a running execution is"),
    "health": ("i3tasks_health", "report the state of the task system"),
    "retry": ("i3tasks_retry", "give executions that failed one more try, by id or by filter"),
    "cancel": ("i3tasks_cancel", "cancel executions, by id or by filter"),
    "run-now": ("i3tasks_run_now", "make executions due that were put off, by id or by filter"),
    "put-off": ("i3tasks_put_off", "let executions that wait begin later, by id or by filter"),
    "discard": ("i3tasks_discard", "delete executions, by id or by filter"),
    "run": ("i3tasks_run", "run one execution here, in this process"),
    "audit": ("i3tasks_audit", "check that the rows are consistent"),
    "ensure-pubsub": ("i3tasks_ensure_pubsub", "create and update topics and subscriptions"),
    "pause-queue": ("i3tasks_pause_queue", "pause a queue, so that no try of it begins"),
    "resume-queue": ("i3tasks_resume_queue", "end the pause of a queue"),
    "clean": ("i3tasks_clean", "delete old finished executions"),
}
SETTINGS = "DJANGO_SETTINGS_MODULE"
NO_PROJECT = f"Which Django project? Run this in the folder of manage.py, or set {SETTINGS}, or pass --settings."


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
    if name in ("init", "doctor"):
        return _run_beside_project(name, rest)
    if name not in COMMANDS:
        print(f"i3tasks has no command {name!r}.\n\n{_usage()}", file=sys.stderr)
        return 2
    return _run_management_command(name, rest)


def _run_emulator(arguments: list[str]) -> int:
    """Run the emulator. It needs a Django project only to make its topics and subscriptions (`--seed settings`)."""
    from .emulator import main as emulator

    if ("--seed", "settings") not in pairwise(arguments):
        return emulator(arguments)
    if not _finds_project([]):
        return 2
    from .management.seeding import with_seed_file

    def run() -> int:
        with with_seed_file(arguments) as seeded:
            return emulator(seeded)

    return _in_a_sentence(run)


def _run_beside_project(name: str, arguments: list[str]) -> int:
    """Run `init` or `doctor`. They are no management commands: i3tasks may not be one of the project's apps yet."""
    is_question = bool({"-h", "--help"} & set(arguments))
    if not is_question and not _finds_project(arguments):
        return 2
    if name == "init":
        from .management.initializing import main as init

        return init(arguments)
    from .management.doctoring import main as doctor

    return doctor(arguments)


def _run_management_command(name: str, arguments: list[str]) -> int:
    """Run the management command under its short name, which its `usage:` then shows. `--help` needs no project."""
    sys.path.insert(0, os.getcwd())
    asks_for_help = bool({"-h", "--help"} & set(arguments))
    if not _has_settings(arguments) and not (asks_for_help and _without_project()):
        print(NO_PROJECT, file=sys.stderr)
        return 2
    return _in_a_sentence(lambda: _run_in_project(name, arguments))


def _run_in_project(name: str, arguments: list[str]) -> int | None:
    from django.core.management import get_commands, load_command_class

    command = COMMANDS[name][0]
    _set_up(arguments)
    app = get_commands().get(command)
    if app is None:
        settings = os.environ.get(SETTINGS, "the settings")
        print(f"i3tasks is not installed: add 'i3tasks' to INSTALLED_APPS of {settings}.", file=sys.stderr)
        return 1
    load_command_class(app, command).run_from_argv(["i3tasks", name, *arguments])
    return 0


def _set_up(arguments: list[str]) -> None:
    """Set Django up, with the settings and the path that the options name."""
    import django
    from django.core.management.base import CommandParser, handle_default_options

    parser = CommandParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--settings")
    parser.add_argument("--pythonpath")
    with suppress(SystemExit):
        handle_default_options(parser.parse_known_args(arguments)[0])
    django.setup()


def _without_project() -> bool:
    """Settings that suffice to show a command's options."""
    from django.conf import settings

    databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    settings.configure(INSTALLED_APPS=["i3tasks"], DATABASES=databases, USE_TZ=True)
    return True


def _in_a_sentence(run: Callable[[], int | None]) -> int:
    """The command's exit code; for wrong settings 1, with their error alone: its traceback would say less."""
    from django.core.exceptions import ImproperlyConfigured

    try:
        return run() or 0
    except ImproperlyConfigured as error:
        print(f"The settings are wrong: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        settings = os.environ.get(SETTINGS, "")
        if error.name is None or not f"{settings}.".startswith(f"{error.name}."):
            raise
        print(f"There is no settings module {settings!r} on the path ({error}).", file=sys.stderr)
    return 1


def _finds_project(arguments: Sequence[str]) -> bool:
    sys.path.insert(0, os.getcwd())
    if _has_settings(arguments):
        return True
    print(NO_PROJECT, file=sys.stderr)
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
        "init": "add i3tasks to this Django project",
        "doctor": "say what is left to do in this project, after django-i3tasks above all",
        "emulator": "run a local Pub/Sub for development",
        **{name: text for name, (_, text) in COMMANDS.items()},
    }
    lines = [f"  {name:<14} {text}" for name, text in commands.items()]
    return "\n".join(["usage: i3tasks COMMAND [OPTIONS]", "", *lines, "", "i3tasks COMMAND --help shows its options."])

"""The options of `i3tasks_worker`, by theme."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser

from ..conf import get_config
from ..types import I3TasksSettings

LONGEST_ID = 255
LARGEST_PORT = 65_535


def add_arguments(parser: CommandParser) -> None:
    """Declare them all."""
    _add_queues(parser)
    _add_sizes(parser)
    _add_ends(parser)
    _add_signs_of_life(parser)
    _add_development(parser)


def require_sense(options: Mapping[str, Any]) -> None:
    """Raise CommandError if the options contradict each other."""
    if options["streams"] > options["concurrency"]:
        raise CommandError(
            f"--streams {options['streams']} is more than --concurrency {options['concurrency']}, which the "
            "streams share: each carries one message at least."
        )
    if options["until_empty"] and (options["processes"] > 1 or options["reload"]):
        raise CommandError("--until-empty ends one process: it can't be used with --processes or --reload.")
    shared = [name for name in ("metrics_port", "worker_id") if options[name] is not None]
    if options["reload"] and shared:
        raise CommandError(
            "--reload is for development: it starts the next process while the last one drains, and both can't have "
            f"the same --{shared[0].replace('_', '-')}."
        )


def _add_queues(parser: CommandParser) -> None:
    parser.add_argument(
        "--queue", action="append", dest="queues", metavar="NAME", help="A queue to run; may be given again. (all)"
    )
    parser.add_argument(
        "--exclude-queue",
        action="append",
        dest="excluded",
        metavar="NAME",
        help="A queue not to run; may be given again. (none)",
    )


def _add_sizes(parser: CommandParser) -> None:
    settings = _settings()
    parser.add_argument(
        "--concurrency",
        type=_positive,
        default=settings.concurrency,
        metavar="N",
        help="How many tasks run at the same time. (%(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=_positive,
        default=settings.threads,
        metavar="N",
        help="How many of them may be sync functions. (%(default)s)",
    )
    parser.add_argument(
        "--processes",
        type=_positive,
        default=1,
        metavar="N",
        help="Run N such workers, each in a process of its own, and replace those that die. (%(default)s)",
    )
    parser.add_argument(
        "--streams",
        type=_positive,
        default=1,
        metavar="N",
        help="How many streams bring the messages of each queue; --concurrency at most. (%(default)s)",
    )


def _add_ends(parser: CommandParser) -> None:
    parser.add_argument("--max-tasks", type=_positive, metavar="N", help="Drain and end after N tasks. (never)")
    parser.add_argument(
        "--until-empty",
        action="store_true",
        help="Drain and end once no due try waits in its queues and none runs here.",
    )


def _add_signs_of_life(parser: CommandParser) -> None:
    parser.add_argument(
        "--liveness-file", type=Path, metavar="FILE", help="Touched every few seconds while the worker is well."
    )
    parser.add_argument(
        "--worker-id",
        type=_worker_id,
        metavar="ID",
        help="Its name in the rows and in `i3tasks workers`; no two at a time may share one. (host:pid:random)",
    )
    parser.add_argument(
        "--metrics-port",
        type=_address,
        metavar="[HOST:]PORT",
        help="Answer Prometheus there, on all interfaces unless a host is given. (nowhere)",
    )


def _add_development(parser: CommandParser) -> None:
    parser.add_argument(
        "--reload",
        action="store_true",
        help="For development: start anew when a Python file of the project changes; running tries drain.",
    )
    parser.add_argument(
        "--no-emulator",
        action="store_true",
        help="Start no embedded emulator, even if the settings ask for one and none runs.",
    )


def _settings() -> I3TasksSettings:
    """The settings that the options default to. If they are wrong, the system checks say so before `handle`."""
    try:
        return get_config().settings
    except ImproperlyConfigured:
        return I3TasksSettings()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_positive.__name__ = "positive number"  # argparse shows it: "invalid positive number value"


def _worker_id(text: str) -> str:
    if not 0 < len(text) <= LONGEST_ID or not text.isprintable():
        raise ValueError
    return text


_worker_id.__name__ = f"name of 1 to {LONGEST_ID} printable characters"


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not 0 <= int(port) <= LARGEST_PORT:
        raise ValueError
    return host, int(port)


_address.__name__ = "port or host:port"

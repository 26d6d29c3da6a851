"""`i3tasks_worker`, also `i3tasks run-worker`: run what arrives on pull queues."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import anyio
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...conf import Config, QueueNames, get_config
from ...engine.worker import Worker
from ...types import PullQueue
from ..embedded import embedded_emulator
from ..events import show_events

ENDING_SECONDS = 1.0  # for what is left once the worker has drained


class Command(BaseCommand):
    help = "Run the tasks of pull queues until SIGTERM or Ctrl-C, which drain; a second one stops at once."
    requires_migrations_checks = True

    def add_arguments(self, parser: CommandParser) -> None:
        settings = get_config().settings
        parser.add_argument(
            "--queue", action="append", dest="queues", metavar="NAME", help="A queue to run; may be given again. (all)"
        )
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
            "--max-tasks",
            type=_positive,
            metavar="N",
            help="Drain and end after N tasks. (never)",
        )
        parser.add_argument(
            "--liveness-file", type=Path, metavar="FILE", help="Touched every few seconds while the worker is well."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        show_events(options["verbosity"])
        config = get_config()
        liveness_file = _writable(options["liveness_file"])
        queues = _queues(config, options["queues"])
        with _emulator(config) as started:
            if started:
                self.stdout.write(f"Started the embedded emulator on {config.pubsub.host}.")
            names = ", ".join(names.name for names in queues)
            self.stdout.write(f"Running tasks of {names}, {options['concurrency']} at a time. Ctrl-C stops.")
            self.stdout.flush()
            worker = Worker(
                queues,
                concurrency=options["concurrency"],
                threads=options["threads"],
                max_tasks=options["max_tasks"],
                liveness_file=liveness_file,
            )
            _run(worker)


def _run(worker: Worker) -> None:
    """Run it, and end: asyncio would wait for bodies that swallow their cancellation, and for their threads."""
    end = threading.Timer(ENDING_SECONDS, _end)
    end.daemon = True

    async def run() -> None:
        await worker.run()
        end.start()

    try:
        anyio.run(run)
    finally:
        end.cancel()


def _end() -> None:
    """All is answered for and written. What it started ends with it."""
    sys.stdout.flush()
    os._exit(0)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_positive.__name__ = "positive number"  # argparse shows it: "invalid positive number value"


def _writable(file: Path | None) -> Path | None:
    """Its absolute path: a body may change the directory."""
    if file is None:
        return None
    try:
        file.touch()
    except OSError as error:
        raise CommandError(f"--liveness-file can't be written: {error}") from None
    return file.absolute()


def _queues(config: Config, asked: list[str] | None) -> list[QueueNames]:
    if asked:
        return [_pull_queue(config, name) for name in dict.fromkeys(asked)]
    if not config.pull_queues:
        raise CommandError(
            "I3TASKS has push queues only: Pub/Sub sends their messages to your web process. To run tasks in a worker, "
            "add a PullQueue(queue_name, subscription_name) to other_queues, or make it the default_queue."
        )
    return config.pull_queues


def _pull_queue(config: Config, name: str) -> QueueNames:
    if name not in config.queues:
        raise CommandError(f"Queue {name!r} not found in I3TASKS configuration. It has: {', '.join(config.queues)}.")
    if not isinstance(config.queues[name].queue, PullQueue):
        raise CommandError(f"Queue {name!r} is not a PullQueue. Pub/Sub pushes its messages to your web process.")
    return config.queues[name]


def _emulator(config: Config) -> AbstractContextManager[bool]:
    return embedded_emulator(config.pubsub.host) if config.pubsub.host is not None else nullcontext(False)

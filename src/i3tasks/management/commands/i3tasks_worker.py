"""`i3tasks_worker`, also `i3tasks run-worker`: run the tries of pull queues."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from django.core.checks import Tags
from django.core.management.base import CommandError, CommandParser
from django.db import connections

from ...broker.loading import leave_forks_alone
from ...conf import Config, QueueNames, get_config
from ...engine.exits import EXITS, Loop
from ...engine.garbage import collected_rarely
from ...engine.worker import Worker
from ...store.database import alias
from ...types import PushQueue
from ..events import show_events
from ..supervising import Supervisor, end_with_supervisor, processes_of
from ..unapplied import NoticingCommand
from ..worker_options import add_arguments, require_sense

ENDING_SECONDS = 1.0  # for what is left once the worker has drained


class Command(NoticingCommand):
    help = "Run the tasks of pull queues until SIGTERM or Ctrl-C, which drain; a second one stops at once."
    requires_system_checks = ("i3tasks", Tags.compatibility, Tags.models, Tags.database)
    """Those of URLs would import all views of the project, which stay in memory, and which a worker never calls."""

    def add_arguments(self, parser: CommandParser) -> None:
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        show_events(options["verbosity"])
        leave_forks_alone()
        config = get_config()
        options["liveness_file"] = _writable(options["liveness_file"])
        queues = _queues(config, options["queues"], options["excluded"] or ())
        require_sense(options)
        with nullcontext() if options["no_emulator"] else _emulator(config, self.stdout.write):
            if options["processes"] > 1 or options["reload"]:
                self._supervise({**options, "queues": [names.name for names in queues]})
            else:
                self._work(config, queues, options)

    def _supervise(self, options: Mapping[str, Any]) -> None:
        many = options["processes"] > 1
        if many and connections[alias()].vendor == "sqlite":
            self.stderr.write(
                "SQLite lets one process write at a time: several share the work of bodies, and add nothing else."
            )
        what = f"{options['processes']} processes, which log" if many else "a process, which logs"
        change = " A change of a Python file starts anew." if options["reload"] else ""
        self._say(f"Running {what} what is done. Ctrl-C stops.{change}", options)
        connections.close_all()
        with tempfile.TemporaryDirectory(prefix="i3tasks-") as folder:
            members, file = processes_of(options, Path(folder)), options["liveness_file"]
            supervisor: Supervisor
            if options["reload"]:
                from ..reloading import ReloadingSupervisor  # late: no worker in production needs it

                supervisor = ReloadingSupervisor(members, partial(self._say, options=options), liveness_file=file)
            else:
                supervisor = Supervisor(members, liveness_file=file)
            code = supervisor.run()
        if code:
            raise CommandError("A process of this worker did not end well: its log says more.", returncode=code)

    def _say(self, text: str, options: Mapping[str, Any]) -> None:
        if options["verbosity"]:
            self.stdout.write(text)
            self.stdout.flush()

    def _work(self, config: Config, queues: list[QueueNames], options: Mapping[str, Any]) -> None:
        end_with_supervisor()
        with _metrics(config, options["metrics_port"]):
            names = ", ".join(names.name for names in queues)
            how_long = "until there are none" if options["until_empty"] else "Ctrl-C stops"
            self._say(f"Running tasks of {names}, {options['concurrency']} at a time. {how_long}.", options)
            worker = Worker(
                queues,
                concurrency=options["concurrency"],
                threads=options["threads"],
                streams=options["streams"],
                max_tasks=options["max_tasks"],
                liveness_file=options["liveness_file"],
                worker_id=options["worker_id"],
                until_empty=options["until_empty"],
            )
            with collected_rarely(options["concurrency"]):
                _run(worker)


def _run(worker: Worker) -> None:
    """Run the worker, then end the process: asyncio would wait for bodies that swallow their cancellation."""
    end = threading.Timer(ENDING_SECONDS, lambda: _end(worker.exit_code))
    end.daemon = True

    async def run() -> None:
        try:
            await worker.run()
        except EXITS as error:  # the loop would go on without it
            raise RuntimeError(f"The worker itself was told to exit: {error!r}") from error
        end.start()

    try:
        anyio.run(run, backend_options={"loop_factory": Loop})
    finally:
        end.cancel()
    if worker.exit_code:
        raise CommandError(
            "The Pub/Sub client of this process broke again and again: start another worker.",
            returncode=worker.exit_code,
        )


def _end(exit_code: int) -> None:
    """End the process. Every try is settled or handed back by now; child processes end with it."""
    sys.stdout.flush()
    os._exit(exit_code)


@contextmanager
def _metrics(config: Config, address: tuple[str, int] | None) -> Iterator[None]:
    """Count, and answer Prometheus at the address, while the block runs."""
    if address is None:
        yield
        return
    try:
        from ...contrib.prometheus.serving import serve
    except ImportError as error:
        raise CommandError("--metrics-port needs a package: pip install 'i3tasks[prometheus]'.") from error
    from ...views.monitoring import metrics_token

    try:
        server = serve(*address, metrics_token(config.settings))
    except OSError as error:
        raise CommandError(f"--metrics-port can't be listened on: {error}") from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _writable(file: Path | None) -> Path | None:
    """The file's absolute path, because a body may change the directory. Raises CommandError."""
    if file is None:
        return None
    try:
        file.touch()
    except OSError as error:
        raise CommandError(f"--liveness-file can't be written: {error}") from None
    return file.absolute()


def _queues(config: Config, asked: list[str] | None, excluded: Sequence[str]) -> list[QueueNames]:
    if not asked and not config.worker_queues:
        raise CommandError(
            "I3TASKS has push queues only: Pub/Sub sends their messages to your web process. To run tasks in a worker, "
            "add a PullQueue(queue_name, subscription_name) or a DatabaseQueue(queue_name) to other_queues, or make it "
            "the default_queue."
        )
    left_out = {_known_queue(config, name).name for name in excluded}
    queues = [_pull_queue(config, name) for name in dict.fromkeys(asked)] if asked else config.worker_queues
    left = [names for names in queues if names.name not in left_out]
    if not left:
        raise CommandError("--exclude-queue leaves this worker no queue to run. Exclude fewer.")
    return left


def _known_queue(config: Config, name: str) -> QueueNames:
    if name not in config.queues:
        raise CommandError(f"Queue {name!r} not found in I3TASKS configuration. It has: {', '.join(config.queues)}.")
    return config.queues[name]


def _pull_queue(config: Config, name: str) -> QueueNames:
    queue = _known_queue(config, name)
    if isinstance(queue.queue, PushQueue):
        raise CommandError(
            f"Queue {name!r} is not a PullQueue. Pub/Sub pushes its messages to your web process: leave it out here."
        )
    return queue


def _emulator(config: Config, started: Callable[[str], object]) -> AbstractContextManager[None]:
    """Started only if it is needed: not for Google's service, and not if all queues are in the database."""
    if config.pubsub.host is None or not config.pubsub_queues:
        return nullcontext()
    from ..embedded import embedded_emulator

    return embedded_emulator(config.pubsub.host, started)

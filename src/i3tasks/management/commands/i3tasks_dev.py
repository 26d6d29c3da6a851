"""`i3tasks_dev`, also `i3tasks dev`: all that a project needs on a laptop, in one terminal."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO, cast

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from ...conf import Config, get_config
from ..developing.asgi import APP_VARIABLE
from ..developing.output import Terminal
from ..developing.parts import asgi_app, has_urls, members, missing_migrations, told
from ..embedded import embedded_emulator, is_listening
from ..events import TERMINAL_VARIABLE, show_events
from ..reloading import ReloadingSupervisor

DEFAULT_ADDRESS = "127.0.0.1:8000"


class Command(BaseCommand):
    help = (
        "Run web server, worker, beat and the embedded emulator until Ctrl-C. When a Python file of the project "
        "changes, they start anew, and the running tries of the worker drain."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "app",
            nargs="?",
            metavar="MODULE:ASGI_APP",
            help="The application for uvicorn. (the project's own if uvicorn is installed, otherwise runserver)",
        )
        parser.add_argument(
            "--address",
            type=_address,
            default=DEFAULT_ADDRESS,
            metavar="[HOST:]PORT",
            help="Where the web server listens. (%(default)s)",
        )
        parser.add_argument("--no-web", action="store_true", help="Start no web server.")
        parser.add_argument("--migrate", action="store_true", help="Apply missing migrations first.")

    def handle(self, *args: Any, **options: Any) -> None:
        terminal = Terminal(cast(TextIO, self.stdout))
        say = terminal.writer("dev")
        _prepare_environment(terminal)
        show_events(options["verbosity"])
        config, app = get_config(), asgi_app(options["app"])
        address = None if options["no_web"] or not (app or has_urls()) else options["address"]
        if address is not None and is_listening(address):
            raise CommandError(
                f"Something listens on {address} already. Stop it, or choose another port: --address 8001"
            )
        _see_to_migrations(options["migrate"], say)
        if app is not None:
            os.environ[APP_VARIABLE] = app
        connections.close_all()
        with _emulator(config, terminal):
            started = members(config, terminal, address, app, options["verbosity"])
            for line in told(config, address, app, started):
                say(line)
            say("Ctrl-C stops all; a changed Python file starts them anew.")
            code = ReloadingSupervisor(started, say).run()
        say("Everything has ended.")
        if code:
            raise CommandError("A process did not end well: its output says more.", returncode=code)


def _prepare_environment(terminal: Terminal) -> None:
    """Let the processes write as if each had the terminal for itself."""
    os.environ.update({TERMINAL_VARIABLE: "1", "PYTHONUNBUFFERED": "1"})
    if not terminal.has_colours:
        os.environ["NO_COLOR"] = "1"


def _see_to_migrations(is_wanted: bool, say: Any) -> None:
    missing = missing_migrations()
    if missing and is_wanted:
        call_command("migrate", verbosity=1)
    elif "i3tasks" in missing:
        raise CommandError("The tables of i3tasks are not up to date. Run `i3tasks dev --migrate`, or migrate first.")
    elif missing:
        say(f"Migrations wait to be applied ({', '.join(missing)}): python manage.py migrate")


def _emulator(config: Config, terminal: Terminal) -> AbstractContextManager[None]:
    if not config.pubsub_queues:
        return nullcontext()
    if config.pubsub.host is None:
        terminal.writer("dev")(
            f"No emulator: PUBSUB_CONFIG names Google's Pub/Sub, project {config.pubsub.project_id}."
        )
        return nullcontext()
    return embedded_emulator(config.pubsub.host, terminal.writer("emulator"))


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not 0 < int(port) <= 65_535:
        raise ValueError
    return f"{host or '127.0.0.1'}:{port}"


_address.__name__ = "port or host:port"  # argparse shows it

"""The processes of `i3tasks dev`, and what they need to start."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

from django.conf import settings
from django.core.management import CommandError
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.urls import NoReverseMatch, reverse

from ...conf import Config
from ...dashboard.navigation import NAMESPACE
from ...store.database import alias
from ..supervising import Member
from .output import Terminal

PACKAGE = __name__.rpartition(".")[0]
GRACE_SECONDS = 2
"""How long a stopping web process waits for requests that go on."""


def asgi_app(given: str | None) -> str | None:
    """The application for uvicorn as `module:attribute`; None: `runserver` it is. Raises CommandError."""
    has_uvicorn = find_spec("uvicorn") is not None
    if given is None:
        return _own_app() if has_uvicorn else None
    if not has_uvicorn:
        raise CommandError("To serve an ASGI application, uvicorn is needed: pip install 'uvicorn>=0.30'.")
    module, _, attribute = given.partition(":")
    if not attribute or not _is_found(module):
        raise CommandError(
            f"{given!r} is no application that can be found. Name it as module:attribute: shop.asgi:application."
        )
    return given


def _own_app() -> str | None:
    """The project's own: ASGI_APPLICATION, or the `asgi` module that `startproject` makes."""
    named = getattr(settings, "ASGI_APPLICATION", None)
    if named:
        return ":".join(named.rsplit(".", 1))
    if not has_urls():
        return None
    module = f"{settings.ROOT_URLCONF.rpartition('.')[0]}.asgi"
    return f"{module}:application" if _is_found(module) else None


def has_urls() -> bool:
    """Whether the project has something that a web server could serve."""
    return bool(getattr(settings, "ROOT_URLCONF", None))


def _is_found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def missing_migrations() -> list[str]:
    """The labels of the apps that have migrations which were not applied."""
    waiting = set()
    for name in {"default", alias()}:
        executor = MigrationExecutor(connections[name])
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
        waiting |= {migration.app_label for migration, _ in plan}
    connections.close_all()
    return sorted(waiting)


def members(config: Config, terminal: Terminal, address: str | None, app: str | None, verbosity: int) -> list[Member]:
    """Web process, worker and beat, as far as there is something for them to do. Without an address, no web process."""
    shared = ["--verbosity", str(verbosity)]
    commands = {"beat": _django("i3tasks_beat", "--skip-checks", *shared)}
    if config.worker_queues:
        commands["worker"] = _django("i3tasks_worker", "--no-emulator", *shared)
    if address is not None:
        commands["web"] = _web(address, app, terminal)
    order = [name for name in ("web", "worker", "beat") if name in commands]
    return [
        Member(number, commands[name], name=name, show=terminal.reader(name), listens=name == "web")
        for number, name in enumerate(order, 1)
    ]


def _web(address: str, app: str | None, terminal: Terminal) -> list[str]:
    if app is None:
        colour = "--force-color" if terminal.has_colours else "--no-color"
        return _django("runserver", "--noreload", "--skip-checks", colour, address)
    host, _, port = address.rpartition(":")
    colour = "--use-colors" if terminal.has_colours else "--no-use-colors"
    options = ["--host", host.strip("[]"), "--port", port, "--timeout-graceful-shutdown", str(GRACE_SECONDS), colour]
    return _tethered("uvicorn", f"{PACKAGE}.asgi:application", *options)


def _django(*command: str) -> list[str]:
    return _tethered("django", *command)


def _tethered(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"{PACKAGE}.tethered", module, *arguments]


def _board() -> str | None:
    """The path of the board, if the project shows it."""
    if not has_urls():
        return None
    try:
        return reverse(f"{NAMESPACE}:overview")
    except NoReverseMatch:
        return None


def told(config: Config, address: str | None, app: str | None, started: Sequence[Member]) -> list[str]:
    """The processes that are about to run, as lines for the terminal."""
    lines = []
    if address is not None:
        lines.append(f"web     http://{address}/ ({'runserver' if app is None else f'uvicorn {app}'})")
        if (board := _board()) is not None:
            lines.append(f"board   http://{address}{board}")
    if any(member.name == "worker" for member in started):
        lines.append(f"worker  queues {', '.join(names.name for names in config.worker_queues)}")
    lines.append("beat    schedules, deferred calls, retries")
    return lines

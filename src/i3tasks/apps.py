"""The Django app."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from .conf import Config

_CHECKING = ("check", "migrate", "runserver", "test")
"""Commands that run the system checks themselves, although they tell Django to run none before them."""


class I3TasksConfig(AppConfig):
    """Finds the project's tasks at start-up. Nothing here touches the network or the database."""

    name = "i3tasks"
    label = "i3tasks"
    verbose_name = "i3tasks"
    default_auto_field = "django.db.models.BigAutoField"
    wrong: ImproperlyConfigured | None = None
    """The problem that was found after the settings were read. The system checks report it."""

    def ready(self) -> None:
        for module in ("checks", "calls.task_group"):  # which register their checks, and TaskGroup's methods
            import_module(f"{self.name}.{module}")
        from .conf import WrongSettings, get_config

        if _is_worker():
            from .broker.loading import leave_forks_alone

            leave_forks_alone()
        try:
            config = get_config()
        except ImproperlyConfigured as error:
            _leave_to_checks(error)
            return
        try:
            _begin(config)
        except WrongSettings as error:
            _leave_to_checks(error)
            self.wrong = error


def _leave_to_checks(error: ImproperlyConfigured) -> None:
    """Write the error before a command that runs no checks; raise it in a process that runs no command."""
    if not _is_command():
        raise error
    if not _runs_checks():
        sys.stderr.write(f"i3tasks: {error} {' '.join(getattr(error, '__notes__', ()))}".rstrip() + "\n")


def _begin(config: Config) -> None:
    from .conf import EMULATOR_HOST_VARIABLE
    from .registry import discover

    if config.pubsub.host is not None:  # for the project's own Pub/Sub clients
        os.environ[EMULATOR_HOST_VARIABLE] = config.pubsub.host
    discover()
    if config.settings.metrics:
        _count_events()
    if config.settings.sentry or config.settings.sentry_crons:
        _report_to_sentry(crons=config.settings.sentry_crons)


def _report_to_sentry(*, crons: bool) -> None:
    try:
        from .contrib.sentry import instrument
    except ImportError as error:
        from .conf import WrongSettings

        raise WrongSettings(
            "I3TASKS has sentry=True or sentry_crons=True, and sentry_sdk is missing: pip install sentry-sdk."
        ) from error
    instrument(crons=crons)


def _count_events() -> None:
    try:
        from .contrib.prometheus.counters import count_events
    except ImportError as error:
        from .conf import WrongSettings

        raise WrongSettings(
            "I3TASKS has metrics=True, and prometheus_client is missing: pip install 'i3tasks[prometheus]'."
        ) from error
    count_events()


def _is_command() -> bool:
    """Whether this process runs a management command, rather than a web server or a script."""
    folder, name = os.path.split(sys.argv[0])
    if name == "__main__.py":  # of `python -m`
        name = os.path.basename(folder)
    return name in ("manage.py", "django-admin", "django", "i3tasks")


def _runs_checks() -> bool:
    """Whether the management command of this process runs the system checks: `dbshell` and `shell` do not."""
    from django.core.management import get_commands, load_command_class

    name = "".join(sys.argv[1:2])
    app = get_commands().get(name)
    command = load_command_class(app, name) if isinstance(app, str) else app
    return command is None or name in _CHECKING or bool(command.requires_system_checks)


def _is_worker() -> bool:
    """Whether this process is a worker, whose tasks' modules may be the first to import gRPC."""
    return _is_command() and sys.argv[1:2] in (["i3tasks_worker"], ["run-worker"])

"""What would fail at three in the morning, said at start-up."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.db.migrations.recorder import MigrationRecorder

from .conf import get_config
from .exceptions import ScheduleError
from .registry import all_tasks
from .store.database import alias
from .store.schedules import of_settings

SUPPORTED = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
SQLITE_OPTIONS = (
    "OPTIONS = {'transaction_mode': 'IMMEDIATE', 'timeout': 20, "
    "'init_command': 'PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL'}"
)


@register("i3tasks")
def check_settings(**_: Any) -> list[CheckMessage]:
    """I3TASKS, PUBSUB_CONFIG and the queues that tasks name."""
    try:
        config = get_config()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="i3tasks.E001")]
    problems: list[CheckMessage] = []
    for spec in all_tasks():
        if spec.options.queue_name and spec.options.queue_name not in config.queues:
            problems.append(
                Error(
                    f"The task {spec.path} goes to the queue {spec.options.queue_name!r}, which I3TASKS does not have.",
                    hint=f"Add it to other_queues. There are: {', '.join(config.queues)}.",
                    id="i3tasks.E002",
                )
            )
    if not django_settings.DEBUG and getattr(django_settings, "PUBSUB_CONFIG", None) is None:
        problems.append(
            Warning(
                "PUBSUB_CONFIG is not set, so tasks go to an emulator on this machine, which is for development.",
                hint="Write PUBSUB_CONFIG = {'PROJECT_ID': '<your Google Cloud project>'}, or {'EMULATOR': True}.",
                id="i3tasks.W001",
            )
        )
    return problems


@register("i3tasks")
def check_schedules(**_: Any) -> list[CheckMessage]:
    """That the enabled schedules of I3TASKS name tasks, queues and arguments that exist. (Rows: see health.)"""
    try:
        schedules = get_config().settings.schedules
    except ImproperlyConfigured:
        return []  # said by check_settings
    problems: list[CheckMessage] = []
    for schedule in filter(lambda schedule: schedule.enabled, schedules):
        try:
            of_settings(schedule).call()
        except ScheduleError as error:
            problems.append(Error(f"The schedule {schedule.key!r} in I3TASKS can't run: {error}", id="i3tasks.E006"))
    return problems


@register("i3tasks")
def check_time_zones(**_: Any) -> list[CheckMessage]:
    """Every instant of ours is aware."""
    if django_settings.USE_TZ:
        return []
    return [Error("i3tasks needs USE_TZ = True: its instants are compared across processes.", id="i3tasks.E003")]


@register("i3tasks")
def check_engine(**_: Any) -> list[CheckMessage]:
    """The kind of database and, for SQLite, how it is opened; no connection is made."""
    connection = connections[alias()]
    if connection.vendor not in SUPPORTED:
        return [
            Error(
                f"i3tasks runs on PostgreSQL and SQLite, and the database {alias()!r} is {connection.vendor}.",
                hint="Send the i3tasks app to another database with a router (DATABASE_ROUTERS).",
                id="i3tasks.E004",
            )
        ]
    if connection.vendor == "sqlite" and not _is_ready_for_writers(connection.settings_dict.get("OPTIONS", {})):
        return [
            Warning(
                "SQLite as Django opens it by default answers 'database is locked' when web and worker write together.",
                hint=f"Set {SQLITE_OPTIONS} for the database {alias()!r}.",
                id="i3tasks.W002",
            )
        ]
    return []


@register("i3tasks", Tags.database)
def check_upgrade(databases: Iterable[str] | None = None, **_: Any) -> list[CheckMessage]:
    """A database of django-i3tasks that our migrations can't take over. Run by `migrate` and `check --database`."""
    if alias() not in (databases or ()):
        return []
    first = import_module("i3tasks.migrations.0001_squashed_0005").Migration
    needed = [name for _, name in first.replaces]
    applied = _applied_migrations(alias())
    missing = [name for name in needed if name not in applied]
    if not missing or len(missing) == len(needed) or "0001_squashed_0005" in applied:
        return []
    return [
        Error(
            f"The i3tasks tables of the database {alias()!r} were made by an early django-i3tasks, and lack its "
            f"migrations from {missing[0]} on.",
            hint="First upgrade with django-i3tasks: install django-i3tasks 0.1.9, run `manage.py migrate i3tasks`, "
            "then install i3tasks and migrate again.",
            id="i3tasks.E005",
        )
    ]


def _applied_migrations(database: str) -> set[str]:
    """Names of the app's migrations; none when the database does not say, which `migrate` will then say itself."""
    try:
        return {name for app, name in MigrationRecorder(connections[database]).applied_migrations() if app == "i3tasks"}
    except DatabaseError:
        return set()


def _is_ready_for_writers(options: dict[str, Any]) -> bool:
    immediate = str(options.get("transaction_mode", "")).upper() in ("IMMEDIATE", "EXCLUSIVE")
    return immediate and "wal" in str(options.get("init_command", "")).lower()

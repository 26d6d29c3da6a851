"""The database that the rows are in. Only `check_upgrade` opens a connection."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections

from ..conf import get_config
from ..store.database import alias, recorded_migrations

OWN_CONNECTIONS = 4
"""The most connections that a worker uses beside those of bodies: writer, dispatcher, beat and main thread."""
FIRST = "0001_squashed_0005"
"""The first migration, in the place of the first five of django-i3tasks."""
SUPPORTED = ("postgresql", "sqlite")
SQLITE_OPTIONS = (
    "OPTIONS = {'transaction_mode': 'IMMEDIATE', 'timeout': 20, "
    "'init_command': 'PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL'}"
)


@register("i3tasks")
def check_time_zones(**_: Any) -> list[CheckMessage]:
    """USE_TZ is on: every instant of i3tasks is aware."""
    if django_settings.USE_TZ:
        return []
    return [Error("i3tasks needs USE_TZ = True: its instants are compared across processes.", id="i3tasks.E003")]


@register("i3tasks")
def check_engine(**_: Any) -> list[CheckMessage]:
    """The kind of database and, for the command `check`, SQLite's options."""
    connection = connections[alias()]
    if connection.vendor not in SUPPORTED:
        return [
            Error(
                f"i3tasks runs on PostgreSQL and SQLite, and the database {alias()!r} is {connection.vendor}.",
                hint="Send the i3tasks app to another database with a router (DATABASE_ROUTERS).",
                id="i3tasks.E004",
            )
        ]
    options = connection.settings_dict.get("OPTIONS", {})
    if _is_command_check() and connection.vendor == "sqlite" and not _is_ready_for_writers(options):
        return [
            Warning(
                "SQLite as Django opens it by default answers 'database is locked' when web and worker write together: "
                "not to i3tasks, but to the project's own transactions.",
                hint=f"Set {SQLITE_OPTIONS} for the database {alias()!r}.",
                id="i3tasks.W002",
            )
        ]
    return []


def _is_command_check() -> bool:
    """Whether the checks were asked for. Other commands run them, too, and need not repeat what is only advice."""
    return sys.argv[1:2] in (["check"], ["doctor"])


def _is_ready_for_writers(options: dict[str, Any]) -> bool:
    immediate = str(options.get("transaction_mode", "")).upper() in ("IMMEDIATE", "EXCLUSIVE")
    return immediate and "wal" in str(options.get("init_command", "")).lower()


@register("i3tasks")
def check_pool(**_: Any) -> list[CheckMessage]:
    """A psycopg pool holds as many connections as a worker uses at the same time."""
    with suppress(ImproperlyConfigured):
        settings = get_config().settings
        pool = connections[alias()].settings_dict.get("OPTIONS", {}).get("pool")
        needed = OWN_CONNECTIONS + settings.threads + settings.database_lanes
        if pool and (size := _pool_size(pool)) < needed:
            return [
                Warning(
                    f"The pool of the database {alias()!r} holds {size} connections, and a worker uses up to {needed}: "
                    f"threads ({settings.threads}), database_lanes ({settings.database_lanes}), and {OWN_CONNECTIONS} "
                    "of its own. Tasks would fail while they wait for one.",
                    hint=f"Set OPTIONS = {{'pool': {{'max_size': {needed}}}}}, or lower threads and database_lanes.",
                    id="i3tasks.W009",
                )
            ]
    return []


def _pool_size(pool: Any) -> int:
    """As psycopg reads the option: without `max_size` a pool does not grow."""
    options = pool if isinstance(pool, dict) else {}
    smallest = options.get("min_size", 4)
    largest = options.get("max_size")
    return int(smallest if largest is None else largest)


@register("i3tasks", Tags.database)
def check_upgrade(databases: Iterable[str] | None = None, **_: Any) -> list[CheckMessage]:
    """The database is not of a django-i3tasks too old to upgrade. Run by `migrate` and `check --database`."""
    if alias() not in (databases or ()):
        return []
    applied = _applied_migrations(alias())
    if FIRST in applied:
        return []
    needed = [name for _, name in import_module(f"i3tasks.migrations.{FIRST}").Migration.replaces]
    missing = [name for name in needed if name not in applied]
    if not missing or len(missing) == len(needed):
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
    """Names of the app's applied migrations; none if the database can't be read, which `migrate` reports itself."""
    try:
        return {name for app, name in recorded_migrations(database) if app == "i3tasks"}
    except DatabaseError:
        return set()

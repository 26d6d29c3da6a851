"""System checks: mistakes that would otherwise show only while tasks run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.db.migrations.recorder import MigrationRecorder
from django.urls import NoReverseMatch, URLResolver, get_resolver, reverse
from django.utils.module_loading import import_string

from .conf import Config, get_config
from .dashboard.navigation import NAMESPACE
from .exceptions import ScheduleError
from .registry import all_tasks, settings_package
from .store.database import alias
from .types import I3TasksSettings

PUSH_SECONDS = 600
"""The longest acknowledgement deadline of a subscription, and so the longest that Pub/Sub waits for an answer."""
OWN_CONNECTIONS = 4
"""The most connections that a worker uses beside those of bodies: writer, dispatcher, beat and main thread."""
PROPAGATION = "i3tasks.contrib.propagation.propagate_headers"
BOARD_APPS = ("django.contrib.auth", "django.contrib.sessions", "django.contrib.messages", "django.contrib.staticfiles")
BOARD_MIDDLEWARE = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)
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
        return [Error(str(error), hint=" ".join(getattr(error, "__notes__", ())) or None, id="i3tasks.E001")]
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
    if config.pubsub_queues and not django_settings.DEBUG and getattr(django_settings, "PUBSUB_CONFIG", None) is None:
        problems.append(
            Warning(
                "PUBSUB_CONFIG is not set, so tasks go to an emulator on this machine, which is for development.",
                hint="Write PUBSUB_CONFIG = {'PROJECT_ID': '<your Google Cloud project>'}, or {'EMULATOR': True}.",
                id="i3tasks.W001",
            )
        )
    return problems


@register("i3tasks")
def check_subscriptions(**_: Any) -> list[CheckMessage]:
    """A task's `subscription_name` is the one that its calls are received through."""
    try:
        config = get_config()
    except ImproperlyConfigured:
        return []  # said by check_settings
    problems: list[CheckMessage] = []
    for spec in all_tasks():
        given, name = spec.options.subscription_name, spec.options.queue_name
        queue = config.queues.get(name or config.settings.default_queue.queue_name)
        if given is None or queue is None or (queue.subscription_name == given and not spec.options.topic_name):
            continue
        problems.append(
            Warning(
                f"The task {spec.path} names the subscription {given!r}, which i3tasks does not use.",
                hint="Leave subscription_name out, and make a subscription to topic_name yourself."
                if spec.options.topic_name
                else f"Its queue {queue.name!r} is received through {queue.subscription_name!r}: set the "
                "subscription_name of the queue in I3TASKS, and leave it out of the task."
                if queue.subscription_name is not None
                else f"Its queue {queue.name!r} is in the database and has no subscription: leave it out of the task.",
                id="i3tasks.W003",
            )
        )
    return problems


@register("i3tasks")
def check_tasks_beside_settings(**_: Any) -> list[CheckMessage]:
    """No tasks.py lies beside settings.py in a folder that is no installed app: workers would not import it."""
    package = settings_package()
    if not package or any(app.name == package for app in apps.get_app_configs()) or not _has_tasks(package):
        return []
    try:
        if f"{package}.tasks" in get_config().settings.task_modules:
            return []
    except ImproperlyConfigured:
        pass  # said by check_settings
    return [
        Warning(
            f"Workers will not find the tasks of {package}/tasks.py, since {package!r} is no installed app.",
            hint=f"Add {package!r} to INSTALLED_APPS, or {f'{package}.tasks'!r} to task_modules of I3TASKS.",
            id="i3tasks.W008",
        )
    ]


def _has_tasks(package: str) -> bool:
    """Whether the package has a module `tasks` that speaks of i3tasks. It is read, not imported."""
    found = find_spec(package)
    for folder in (found and found.submodule_search_locations) or ():
        with suppress(OSError, UnicodeError):
            return "i3tasks" in Path(folder, "tasks.py").read_text(encoding="utf-8")
    return False


@register("i3tasks")
def check_propagation(**_: Any) -> list[CheckMessage]:
    """Headers travel only if the middleware reads them."""
    try:
        headers = get_config().settings.propagate_headers
    except ImproperlyConfigured:
        return []  # said by check_settings
    if not headers or PROPAGATION in django_settings.MIDDLEWARE:
        return []
    message = f"propagate_headers is set, and {PROPAGATION} is not in MIDDLEWARE: no header travels."
    return [Warning(message, hint=f"Add {PROPAGATION!r} to MIDDLEWARE.", id="i3tasks.W010")]


@register("i3tasks")
def check_board(**_: Any) -> list[CheckMessage]:
    """What the pages of the board need is there, where a URL leads to them."""
    if not getattr(django_settings, "ROOT_URLCONF", None) or not _leads_to_board(get_resolver()):
        return []
    missing = [f"{name!r} in INSTALLED_APPS" for name in BOARD_APPS if not apps.is_installed(name)]
    missing += [f"{name!r} in MIDDLEWARE" for name in BOARD_MIDDLEWARE if not _has_middleware(name)]
    if not _finds_templates():
        missing.append("an entry of TEMPLATES with Django's backend and 'APP_DIRS': True")
    if not missing:
        return []
    message = f"A URL leads to the board of i3tasks, whose pages can't be shown without {', '.join(missing)}."
    return [Warning(message, hint="Add what is missing, or leave i3tasks.dashboard.urls out.", id="i3tasks.W011")]


def _leads_to_board(resolver: URLResolver) -> bool:
    """Whether the board is among these URLs. Its views are not imported, as `reverse` would."""
    inner = [one for one in resolver.url_patterns if isinstance(one, URLResolver)]
    return resolver.app_name == NAMESPACE or any(_leads_to_board(one) for one in inner)


def _has_middleware(name: str) -> bool:
    """Whether it is there, or a class that extends it."""
    if name in django_settings.MIDDLEWARE:
        return True
    wanted = import_string(name)
    for path in django_settings.MIDDLEWARE:
        with suppress(Exception):  # Django itself says that it can't be imported
            found = import_string(path)
            if isinstance(found, type) and issubclass(found, wanted):
                return True
    return False


def _finds_templates() -> bool:
    """Whether Django's backend looks into the folders of apps, or has loaders that the project chose."""
    entries: list[dict[str, Any]] = list(django_settings.TEMPLATES)
    for entry in entries:
        is_djangos = entry.get("BACKEND") == "django.template.backends.django.DjangoTemplates"
        if is_djangos and (entry.get("APP_DIRS") or "loaders" in entry.get("OPTIONS", {})):
            return True
    return False


@register("i3tasks")
def check_schedules(**_: Any) -> list[CheckMessage]:
    """The enabled schedules of I3TASKS name tasks, queues and arguments that exist. (Health covers those in rows.)"""
    try:
        schedules = get_config().settings.schedules
    except ImproperlyConfigured:
        return []  # said by check_settings
    enabled = [schedule for schedule in schedules if schedule.enabled]
    if not enabled:
        return []
    from .store.schedules import of_settings  # and with it what reads cron expressions

    problems: list[CheckMessage] = []
    for schedule in enabled:
        try:
            of_settings(schedule).call()
        except ScheduleError as error:
            problems.append(Error(f"The schedule {schedule.key!r} in I3TASKS can't run: {error}", id="i3tasks.E006"))
    return problems


@register("i3tasks", deploy=True)
def check_doors(**_: Any) -> list[CheckMessage]:
    """The endpoints are closed to strangers, as far as the project's URLs include them. Run by `check --deploy`."""
    try:
        config = get_config()
    except ImproperlyConfigured:
        return []  # said by check_settings
    if django_settings.DEBUG or not _is_included("i3tasks-push"):
        return []
    return [*_open_to_requests(config), *_open_to_readers(config.settings)]


def _open_to_requests(config: Config) -> Iterator[CheckMessage]:
    """Problems of the endpoints that run tasks."""
    if config.pubsub.emulator:
        yield Error(
            "PUBSUB_CONFIG names an emulator, where anyone may send push and beat requests, and DEBUG is off.",
            hint="Write PUBSUB_CONFIG = {'PROJECT_ID': '<your Google Cloud project>'}.",
            id="i3tasks.E007",
        )
    elif config.settings.allow_unverified:
        yield Warning(
            "allow_unverified is True, so anyone who reaches the push and beat endpoints can run what is due.",
            hint="Set service_account in I3TASKS instead, unless only your own network reaches them.",
            id="i3tasks.W005",
        )


def _open_to_readers(settings: I3TasksSettings) -> Iterator[CheckMessage]:
    """Problems of the endpoints that show rows."""
    if settings.health_token is None:
        open_ones = "health endpoint is" if settings.status_token is not None else "health and status endpoints are"
        yield Warning(
            f"The {open_ones} open to anyone.",
            hint="Set health_token and status_token in I3TASKS, unless only your own network reaches them.",
            id="i3tasks.W004",
        )


def _is_included(view: str) -> bool:
    try:
        reverse(view)
    except NoReverseMatch:
        return False
    return True


@register("i3tasks")
def check_time_zones(**_: Any) -> list[CheckMessage]:
    """USE_TZ is on: every instant of i3tasks is aware."""
    if django_settings.USE_TZ:
        return []
    return [Error("i3tasks needs USE_TZ = True: its instants are compared across processes.", id="i3tasks.E003")]


@register("i3tasks")
def check_engine(**_: Any) -> list[CheckMessage]:
    """The kind of database and, for the command `check`, SQLite's options. Opens no connection."""
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


@register("i3tasks")
def check_pool(**_: Any) -> list[CheckMessage]:
    """A psycopg pool holds as many connections as a worker uses at the same time. Opens no connection."""
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
    """Names of the app's applied migrations; none if the database can't be read, which `migrate` reports itself."""
    try:
        return {name for app, name in MigrationRecorder(connections[database]).applied_migrations() if app == "i3tasks"}
    except DatabaseError:
        return set()


def _is_command_check() -> bool:
    """Whether the checks were asked for. Other commands run them, too, and need not repeat what is only advice."""
    return sys.argv[1:2] in (["check"], ["doctor"])


def _is_ready_for_writers(options: dict[str, Any]) -> bool:
    immediate = str(options.get("transaction_mode", "")).upper() in ("IMMEDIATE", "EXCLUSIVE")
    return immediate and "wal" in str(options.get("init_command", "")).lower()


@register("i3tasks", deploy=True)
def check_push(**_: Any) -> list[CheckMessage]:
    """Push queues and the beat work as they are configured. Run by `check --deploy`."""
    try:
        config = get_config()
    except ImproperlyConfigured:
        return []  # said by check_settings
    problems = _too_long_for_push(config)
    if not config.pubsub.emulator:
        problems += _refused_pushes(config)
        problems += _refused_beats(config)
    return problems


def _too_long_for_push(config: Config) -> list[CheckMessage]:
    queues = {names.name for names in config.push_queues}
    default = config.settings.default_queue.queue_name
    return [
        Error(
            f"The task {spec.path} may run for {timeout:g} s, and its queue pushes: Pub/Sub waits {PUSH_SECONDS} s for "
            "the answer to a push at most, and then takes it for failed.",
            hint="Shorten its timeout, split it, or send it to a PullQueue.",
            id="i3tasks.E009",
        )
        for spec in all_tasks()
        if (spec.options.queue_name or default) in queues and (timeout := spec.timeout({}) or 0) > PUSH_SECONDS
    ]


def _refused_pushes(config: Config) -> list[CheckMessage]:
    problems: list[CheckMessage] = []
    for names in config.push_queues:
        if names.push_identity is None and not config.settings.allow_unverified:
            problems.append(
                Error(
                    f"Pushes of the queue {names.name!r} are refused, because no service account is set to sign them.",
                    hint="Set service_account in I3TASKS, and run `i3tasks ensure-pubsub`.",
                    id="i3tasks.E008",
                )
            )
        if not (names.push_endpoint or "").startswith("https://"):
            problems.append(
                Error(
                    f"The queue {names.name!r} is to be pushed to {names.push_endpoint}, and Pub/Sub pushes to https "
                    "only.",
                    hint="Write its URL, or `endpoint` in I3TASKS, with https.",
                    id="i3tasks.E010",
                )
            )
    return problems


def _refused_beats(config: Config) -> list[CheckMessage]:
    settings = config.settings
    is_open = settings.allow_unverified or settings.beat_token is not None or config.beat_identities
    if not config.push_queues or is_open:
        return []
    return [
        Warning(
            "Every beat is refused. Without a worker, nothing then runs schedules, retries and deferred tasks.",
            hint="Set service_account and endpoint in I3TASKS, or beat_token, unless a worker runs as well.",
            id="i3tasks.W006",
        )
    ]

"""Checks of I3TASKS and PUBSUB_CONFIG, and of the names in tasks and schedules."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured

from ..conf import get_config
from ..exceptions import ScheduleError
from ..registry import all_tasks, settings_package

PROPAGATION = "i3tasks.contrib.propagation.propagate_headers"


@register("i3tasks")
def check_settings(**_: Any) -> list[CheckMessage]:
    """I3TASKS, PUBSUB_CONFIG and the queues that tasks name."""
    try:
        config = get_config()
    except ImproperlyConfigured as error:
        return [Error(str(error), hint=" ".join(getattr(error, "__notes__", ())) or None, id="i3tasks.E001")]
    wrong: Any = getattr(apps.get_app_config("i3tasks"), "wrong", None)
    problems: list[CheckMessage] = [Error(str(wrong), id="i3tasks.E001")] if wrong else []
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
def check_schedules(**_: Any) -> list[CheckMessage]:
    """The enabled schedules of I3TASKS name tasks, queues and arguments that exist. (Health covers those in rows.)"""
    try:
        schedules = get_config().settings.schedules
    except ImproperlyConfigured:
        return []  # said by check_settings
    enabled = [schedule for schedule in schedules if schedule.enabled]
    if not enabled:
        return []
    from ..store.schedules import of_settings  # and with it what reads cron expressions

    problems: list[CheckMessage] = []
    for schedule in enabled:
        try:
            of_settings(schedule).call()
        except ScheduleError as error:
            problems.append(Error(f"The schedule {schedule.key!r} in I3TASKS can't run: {error}", id="i3tasks.E006"))
    return problems

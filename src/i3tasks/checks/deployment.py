"""The endpoints that are exposed to the network, and the push queues. Run by `check --deploy`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.urls import NoReverseMatch, reverse

from ..conf import Config, get_config
from ..registry import all_tasks
from ..types import I3TasksSettings

PUSH_SECONDS = 600
"""The longest acknowledgement deadline of a subscription, and so the longest that Pub/Sub waits for an answer."""


@register("i3tasks", deploy=True)
def check_endpoints(**_: Any) -> list[CheckMessage]:
    """The endpoints that the project's URLs include are closed to unknown senders. Run by `check --deploy`."""
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
            "allow_unverified is True, so anyone who reaches the push and beat endpoints can have due tasks run.",
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

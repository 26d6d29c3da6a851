"""Django's settings as one `Config`, read when first asked for and again after `override_settings`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from .exceptions import UnknownQueueError
from .outcome import ErrorLimits
from .types import I3TasksSettings, PullQueue, PushQueue

EMULATOR_HOST_VARIABLE = "PUBSUB_EMULATOR_HOST"
DEFAULT_EMULATOR_HOST = "127.0.0.1:8085"
DEFAULT_EMULATOR_PROJECT = "i3tasks"
_PUBSUB_KEYS = ("EMULATOR", "HOST", "PROJECT_ID", "CREDENTIALS")


@dataclass(frozen=True, slots=True)
class PubSubConfig:
    """`PUBSUB_CONFIG`, checked."""

    emulator: bool
    host: str | None
    """`host:port` of the emulator; None for the real service."""
    project_id: str
    credentials: str | None
    """Path of a service account's key file; None for application default credentials."""


@dataclass(frozen=True, slots=True)
class QueueNames:
    """A queue and the full names of what carries it in Pub/Sub."""

    queue: PushQueue | PullQueue
    topic: str
    subscription: str
    dead_letter_topic: str
    dead_letter_subscription: str

    @property
    def name(self) -> str:
        return self.queue.queue_name


@dataclass(frozen=True, slots=True)
class Config:
    """What the rest of i3tasks reads."""

    settings: I3TasksSettings
    pubsub: PubSubConfig
    queues: Mapping[str, QueueNames]

    @property
    def error_limits(self) -> ErrorLimits:
        """How much of an error is kept."""
        return ErrorLimits(self.settings.error_message_characters, self.settings.error_traceback_characters)

    def queue(self, name: str | None) -> QueueNames:
        """The queue called `name`; None or "" is the default one. Raises UnknownQueueError."""
        if not name:
            return self.queues[self.settings.default_queue.queue_name]
        if name not in self.queues:
            raise UnknownQueueError(
                f"There is no queue {name!r} in I3TASKS. It has: {', '.join(map(repr, self.queues))}. "
                f"Add it to `other_queues`, or use one of these."
            )
        return self.queues[name]

    @property
    def pull_queues(self) -> list[QueueNames]:
        return [queue for queue in self.queues.values() if isinstance(queue.queue, PullQueue)]

    @property
    def push_queues(self) -> list[QueueNames]:
        return [queue for queue in self.queues.values() if isinstance(queue.queue, PushQueue)]


@lru_cache(maxsize=1)
def get_config() -> Config:
    """The project's configuration. Raises ImproperlyConfigured in a sentence that says what to write."""
    settings = _read_settings()
    pubsub = _read_pubsub()
    return Config(settings, pubsub, {queue.queue_name: _names(settings, pubsub, queue) for queue in settings.queues})


def _forget(*, setting: str, **_: Any) -> None:
    if setting in ("I3TASKS", "PUBSUB_CONFIG"):
        get_config.cache_clear()


setting_changed.connect(_forget, dispatch_uid="i3tasks.conf")


def _read_settings() -> I3TasksSettings:
    settings = getattr(django_settings, "I3TASKS", None)
    if settings is None:
        return I3TasksSettings()
    if not isinstance(settings, I3TasksSettings):
        raise ImproperlyConfigured(
            "I3TASKS must be an I3TasksSettings: write `from i3tasks.types import I3TasksSettings` and "
            f"`I3TASKS = I3TasksSettings(namespace=..., ...)`. It is a {type(settings).__name__}."
        )
    return settings


def _read_pubsub() -> PubSubConfig:
    raw = getattr(django_settings, "PUBSUB_CONFIG", None)
    if raw is None:
        raw = {"EMULATOR": True}
    if not isinstance(raw, Mapping):
        raise ImproperlyConfigured(f"PUBSUB_CONFIG must be a dict with {', '.join(_PUBSUB_KEYS)}, not {raw!r}.")
    for key in raw:
        if key not in _PUBSUB_KEYS:
            close = difflib.get_close_matches(str(key).upper(), _PUBSUB_KEYS, 1)
            hint = f"Did you mean {close[0]!r}?" if close else f"It takes {', '.join(_PUBSUB_KEYS)}."
            raise ImproperlyConfigured(f"PUBSUB_CONFIG has no key {key!r}. {hint}")
    emulator = raw.get("EMULATOR", False)
    if not isinstance(emulator, bool):
        raise ImproperlyConfigured(f"PUBSUB_CONFIG['EMULATOR'] must be True or False, not {emulator!r}.")
    return _read_emulator(raw) if emulator else _read_service(raw)


def _read_emulator(raw: Mapping[str, Any]) -> PubSubConfig:
    host = raw.get("HOST") or os.environ.get(EMULATOR_HOST_VARIABLE) or DEFAULT_EMULATOR_HOST
    name, _, port = str(host).rpartition(":")
    if not name or "/" in name or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65_536:
        raise ImproperlyConfigured(f"PUBSUB_CONFIG['HOST'] must be 'host:port' of the emulator, not {host!r}.")
    return PubSubConfig(True, str(host), _project(raw) or DEFAULT_EMULATOR_PROJECT, None)


def _read_service(raw: Mapping[str, Any]) -> PubSubConfig:
    project = _project(raw) or os.environ.get("GOOGLE_CLOUD_PROJECT")
    if not project:
        raise ImproperlyConfigured(
            "PUBSUB_CONFIG['PROJECT_ID'] must name your Google Cloud project. "
            "For local work without one, write PUBSUB_CONFIG = {'EMULATOR': True}."
        )
    if raw.get("HOST"):
        raise ImproperlyConfigured(
            "PUBSUB_CONFIG['HOST'] is the emulator's address, but EMULATOR is not True. Remove HOST to use Google's "
            "Pub/Sub, or set EMULATOR to True."
        )
    if os.environ.get(EMULATOR_HOST_VARIABLE):
        raise ImproperlyConfigured(
            f"{EMULATOR_HOST_VARIABLE} is set in the environment, but PUBSUB_CONFIG['EMULATOR'] is not True. Unset the "
            "variable to use Google's Pub/Sub, or set EMULATOR to True."
        )
    credentials = raw.get("CREDENTIALS") or None
    if credentials is not None and not (isinstance(credentials, (str, os.PathLike)) and os.path.isfile(credentials)):
        raise ImproperlyConfigured(
            f"PUBSUB_CONFIG['CREDENTIALS'] is {_shown(credentials)}, and there is no such file. Give the path of a "
            "service account's key file, or leave it out to use application default credentials."
        )
    return PubSubConfig(False, None, project, None if credentials is None else str(credentials))


def _shown(credentials: object) -> str:
    """A path; never a key that stands where its path should."""
    text = str(credentials)
    is_path = isinstance(credentials, (str, os.PathLike)) and len(text) < 1000 and "PRIVATE KEY" not in text
    return repr(text) if is_path else f"a {type(credentials).__name__} that is no path"


def _project(raw: Mapping[str, Any]) -> str | None:
    project = raw.get("PROJECT_ID")
    if project is not None and not (isinstance(project, str) and project):
        raise ImproperlyConfigured(f"PUBSUB_CONFIG['PROJECT_ID'] must be a project's id, not {project!r}.")
    return project


def _names(settings: I3TasksSettings, pubsub: PubSubConfig, queue: PushQueue | PullQueue) -> QueueNames:
    topic = f"{settings.namespace}.{queue.queue_name.replace('.', '-')}"
    subscription = f"{topic}.{queue.subscription_name.replace('.', '-')}"
    topics, subscriptions = (
        f"projects/{pubsub.project_id}/topics",
        f"projects/{pubsub.project_id}/subscriptions",
    )
    return QueueNames(
        queue=queue,
        topic=f"{topics}/{topic}",
        subscription=f"{subscriptions}/{subscription}",
        dead_letter_topic=f"{topics}/{subscription}.dead-letter",
        dead_letter_subscription=f"{subscriptions}/{subscription}.dead-letter",
    )

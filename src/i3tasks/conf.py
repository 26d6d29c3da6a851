"""Django's settings as one `Config`, read at first use and again after `override_settings`."""

# No `from __future__ import annotations`: a dataclass searches each annotation that is text, at every start.

import difflib
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from .core.frozen import Frozen, dataclass
from .exceptions import UnknownQueueError
from .types import DatabaseQueue, I3TasksSettings, PullQueue, PushQueue
from .types.base import Mistake

if TYPE_CHECKING:
    from .core.outcome import ErrorLimits

EMULATOR_HOST_VARIABLE = "PUBSUB_EMULATOR_HOST"
DEFAULT_EMULATOR_HOST = "127.0.0.1:8085"
DEFAULT_EMULATOR_PROJECT = "i3tasks"
PUSH_PATH = "tasks-push/"
BEAT_PATH = "tasks-beat/"
_PUSH_END = r"tasks-push/?$"
_PUBSUB_KEYS = ("EMULATOR", "HOST", "PROJECT_ID", "CREDENTIALS")


class WrongSettings(ImproperlyConfigured):
    """Settings that can be read, but name a thing that does not exist. With manage.py, the system checks report it."""


@dataclass(frozen=True)
class PubSubConfig(Frozen):
    """The checked content of `PUBSUB_CONFIG`."""

    emulator: bool
    host: str | None
    """`host:port` of the emulator; None for the real service."""
    project_id: str
    credentials: str | None
    """Path of a service account's key file; None for application default credentials."""


@dataclass(frozen=True)
class Identity(Frozen):
    """The sender that is expected of a request: the claims of the OIDC token that it carries."""

    service_account: str
    """The `email` of the token."""
    audience: str
    """Its `aud`."""


@dataclass(frozen=True)
class QueueNames(Frozen):
    """A queue, and the full names of its topics and subscriptions in Pub/Sub. A DatabaseQueue has none: they are ""."""

    queue: PushQueue | PullQueue | DatabaseQueue
    topic: str
    subscription: str
    dead_letter_topic: str
    dead_letter_subscription: str
    push_endpoint: str | None = None
    """The full URL that messages are pushed to; None for a pull queue."""
    push_identity: Identity | None = None
    """The sender of its pushes. None: pushes are not signed, or it is a pull queue."""

    @property
    def name(self) -> str:
        return self.queue.queue_name

    @property
    def subscription_name(self) -> str | None:
        """The subscription's name in I3TASKS; None for a DatabaseQueue."""
        return None if isinstance(self.queue, DatabaseQueue) else self.queue.subscription_name


@dataclass(frozen=True)
class Config(Frozen):
    """The whole configuration, as the rest of i3tasks reads it."""

    settings: I3TasksSettings
    pubsub: PubSubConfig
    queues: Mapping[str, QueueNames]

    @property
    def error_limits(self) -> "ErrorLimits":
        """How many characters of an error's text and traceback are kept."""
        from .core.outcome import ErrorLimits  # for processes that run tasks

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
    def pubsub_queues(self) -> list[QueueNames]:
        """All queues but the DatabaseQueues. If there are none, Pub/Sub is not used."""
        return [queue for queue in self.queues.values() if not isinstance(queue.queue, DatabaseQueue)]

    @property
    def database_queues(self) -> list[QueueNames]:
        return [queue for queue in self.queues.values() if isinstance(queue.queue, DatabaseQueue)]

    @property
    def worker_queues(self) -> list[QueueNames]:
        """The queues whose tries a worker runs."""
        return [queue for queue in self.queues.values() if not isinstance(queue.queue, PushQueue)]

    @property
    def pull_queues(self) -> list[QueueNames]:
        return [queue for queue in self.queues.values() if isinstance(queue.queue, PullQueue)]

    @property
    def push_queues(self) -> list[QueueNames]:
        return [queue for queue in self.queues.values() if isinstance(queue.queue, PushQueue)]

    def queues_pushed_by(self, sender: Identity | None) -> frozenset[str | None]:
        """The push queues of this sender, as rows name them: null is the default queue. None: those of all senders."""
        names: set[str | None] = {
            queue.name for queue in self.push_queues if sender is None or queue.push_identity == sender
        }
        return frozenset(names | {None} if self.settings.default_queue.queue_name in names else names)

    @property
    def beat_url(self) -> str | None:
        """The beat endpoint's URL, as far as `endpoint` or a push queue's endpoint tells."""
        if self.settings.endpoint is not None:
            return _below(self.settings.endpoint, BEAT_PATH)
        endpoints = (queue.push_endpoint or "" for queue in self.push_queues)
        return next((re.sub(_PUSH_END, BEAT_PATH, url) for url in endpoints if re.search(_PUSH_END, url)), None)

    @property
    def push_identities(self) -> frozenset[Identity]:
        """The senders whose pushes are accepted."""
        return frozenset(queue.push_identity for queue in self.push_queues if queue.push_identity is not None)

    @property
    def beat_identities(self) -> frozenset[Identity]:
        """The senders whose beats are accepted: the account of I3TASKS; without one, those of the push queues."""
        audience = self.settings.audience or self.beat_url
        if audience is None:
            return frozenset()
        if self.settings.service_account is not None:
            return frozenset({Identity(self.settings.service_account, audience)})
        return frozenset(Identity(pusher.service_account, audience) for pusher in self.push_identities)


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
    if isinstance(settings, Mistake):
        settings.reveal()
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
    """The value for an error message: a path, but never a key that was given in place of its path."""
    text = str(credentials)
    is_path = isinstance(credentials, (str, os.PathLike)) and len(text) < 1000 and "PRIVATE KEY" not in text
    return repr(text) if is_path else f"a {type(credentials).__name__} that is no path"


def _project(raw: Mapping[str, Any]) -> str | None:
    project = raw.get("PROJECT_ID")
    if project is not None and not (isinstance(project, str) and project):
        raise ImproperlyConfigured(f"PUBSUB_CONFIG['PROJECT_ID'] must be a project's id, not {project!r}.")
    return project


def _names(settings: I3TasksSettings, pubsub: PubSubConfig, queue: PushQueue | PullQueue | DatabaseQueue) -> QueueNames:
    if isinstance(queue, DatabaseQueue):
        return QueueNames(queue, "", "", "", "")
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
        push_endpoint=_push_endpoint(settings, queue),
        push_identity=_push_identity(settings, queue),
    )


def _push_endpoint(settings: I3TasksSettings, queue: PushQueue | PullQueue) -> str | None:
    if isinstance(queue, PullQueue):
        return None
    return queue.push_endpoint or _below(settings.endpoint or "", PUSH_PATH)


def _push_identity(settings: I3TasksSettings, queue: PushQueue | PullQueue) -> Identity | None:
    endpoint = _push_endpoint(settings, queue)
    if isinstance(queue, PullQueue) or endpoint is None:
        return None
    account = queue.service_account or settings.service_account
    return None if account is None else Identity(account, queue.audience or settings.audience or endpoint)


def _below(base: str, path: str) -> str:
    return f"{base.rstrip('/')}/{path}"


def queue_or_default(queue_name: str | None) -> str:
    """The name of the queue that a row or a call names; that of the default queue where it names none."""
    return queue_name or get_config().settings.default_queue.queue_name

"""The values that `settings.py` is written with. Importing this loads neither models nor the Pub/Sub client.

    I3TASKS = I3TasksSettings(
        namespace="shop",
        default_queue=PullQueue("default", "worker"),
        other_queues=(PushQueue("mail", "web", "https://shop.example.com/i3/tasks-push/"),),
    )

Every value is frozen and validated when it is made: a mistake raises ImproperlyConfigured in a sentence that says
what to write instead.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from .schedule_fields import hash_key, problems

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~%+-]*")


_FOREVER = 10 * 365 * 86_400.0
_RANGES: dict[str, tuple[float, float]] = {
    "default_max_retries": (0, 1_000_000),
    "task_retry_backoff_base_seconds": (0, _FOREVER),
    "task_retry_backoff_max_seconds": (0, _FOREVER),
    "default_timeout_seconds": (0.001, _FOREVER),
    "retry_minimum_backoff_seconds": (0, 600),
    "retry_maximum_backoff_seconds": (0, 600),
    "ack_deadline_seconds": (10, 600),
    "message_retention_seconds": (600, 31 * 86_400),
    "dead_letter_max_attempts": (5, 100),
    "flush_seconds": (0, 3600),
    "concurrency": (1, 100_000),
    "threads": (1, 10_000),
    "database_lanes": (1, 10_000),
    "drain_seconds": (0, 86_400),
    "lease_seconds": (1, 86_400),
    "heartbeat_seconds": (0.1, 86_400),
    "publish_grace_seconds": (1, 86_400),
    "error_message_characters": (100, 10_000_000),
    "error_traceback_characters": (100, 10_000_000),
    "lost_after_seconds": (1, 86_400),
    "health_window_minutes": (1, 10_000_000),
    "health_stuck_minutes": (1, 10_000_000),
    "health_failed_threshold": (0, 10**9),
    "health_pending_age_seconds_threshold": (0, 10**9),
}
_MAY_BE_NONE = {
    "task_retry_backoff_base_seconds",
    "default_timeout_seconds",
    "retry_minimum_backoff_seconds",
    "retry_maximum_backoff_seconds",
}


def _require_name(name: str, value: object) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value) or len(value) > 100:
        raise ImproperlyConfigured(
            f"{name} must be 1 to 100 letters, digits, or any of - . _ ~ % +, starting with a letter or digit, "
            f"not {value!r}."
        )


def _require_complete(cls: type[Any], given: list[str]) -> None:
    needed = [item.name for item in fields(cls) if item.default is MISSING and item.default_factory is MISSING]
    missing = [name for name in needed if name not in given]
    if missing:
        raise ImproperlyConfigured(f"{cls.__name__} needs {', '.join(needed)}; {', '.join(missing)} is missing.")


class _Settings:
    """Turns an unknown or misspelt argument into a sentence, before `__init__` sees it."""

    __slots__ = ()

    if not TYPE_CHECKING:  # type checkers read the signature that dataclass makes

        def __new__(cls, *args: Any, **kwargs: Any) -> _Settings:
            names = [item.name for item in fields(cls)]
            for name in kwargs:
                if name not in names:
                    close = difflib.get_close_matches(name, names, 1)
                    hint = f"Did you mean {close[0]!r}?" if close else f"It has: {', '.join(names)}."
                    raise ImproperlyConfigured(f"{cls.__name__} has no setting {name!r}. {hint}")
            if args or kwargs:  # without any, it is pickle or copy that makes one
                _require_complete(cls, [*names[: len(args)], *kwargs])
            return super().__new__(cls)


@dataclass(frozen=True, slots=True)
class PullQueue(_Settings):
    """A topic whose subscription workers stream from (`i3tasks run-worker`)."""

    queue_name: str
    subscription_name: str

    def __post_init__(self) -> None:
        _require_name("queue_name", self.queue_name)
        _require_name("subscription_name", self.subscription_name)

    def __iter__(self) -> Iterator[str]:
        return iter((self.queue_name, self.subscription_name))


@dataclass(frozen=True, slots=True)
class PushQueue(_Settings):
    """A topic whose subscription POSTs each message to `push_endpoint`, the full URL of `tasks-push/`."""

    queue_name: str
    subscription_name: str
    push_endpoint: str

    def __post_init__(self) -> None:
        _require_name("queue_name", self.queue_name)
        _require_name("subscription_name", self.subscription_name)
        endpoint = urlsplit(str(self.push_endpoint))
        if endpoint.scheme not in ("http", "https") or not endpoint.netloc:
            raise ImproperlyConfigured(
                f"push_endpoint of queue {self.queue_name!r} must be a full URL such as "
                f"'https://shop.example.com/i3/tasks-push/', not {self.push_endpoint!r}."
            )

    def __iter__(self) -> Iterator[str]:
        return iter((self.queue_name, self.subscription_name, self.push_endpoint))


Queue = PushQueue  # the older name


@dataclass(frozen=True, slots=True)
class Schedule(_Settings):
    """Runs the task `module_name.func_name` with `args` and `kwargs` whenever `cron` is due."""

    module_name: str
    func_name: str
    cron: str
    """Five fields, or an alias such as "@daily"."""
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    """What it is known by. None: a hash of the other fields, so that a changed schedule counts as a new one."""
    time_zone: str | None = None
    """An IANA name such as "Europe/Berlin". None: the project's TIME_ZONE."""
    queue_name: str | None = None
    """None: the task's own queue."""
    enabled: bool = True
    catch_up: str = "latest"
    """What is made up for after a time in which no beat ran: the "latest" slot, "all" of them, or "none"."""

    def __post_init__(self) -> None:
        for name, problem in problems({item.name: getattr(self, item.name) for item in fields(self)}).items():
            known_as = self.name or f"{self.module_name}.{self.func_name}"
            raise ImproperlyConfigured(f"{name} of the schedule {known_as!r}: {problem}")

    def __iter__(self) -> Iterator[Any]:
        return iter((self.module_name, self.func_name, self.cron, self.args, self.kwargs))

    @property
    def key(self) -> str:
        """What the database knows it by."""
        return self.name or hash_key(*self, self.time_zone, self.queue_name)


@dataclass(frozen=True, slots=True)
class I3TasksSettings(_Settings):
    """Everything about i3tasks that a project can set. Times are in seconds unless the name says otherwise."""

    namespace: str = "i3tasks"
    """First part of every topic's and subscription's name. Give each project and environment its own."""
    default_queue: PushQueue | PullQueue = PullQueue("default", "worker")
    """Where tasks without a `queue_name` go."""
    other_queues: tuple[PushQueue | PullQueue, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    task_modules: tuple[str, ...] = ()
    """Modules with tasks beside the `tasks` module of each installed app, which is always imported."""
    force_sync: bool = False
    """True: `delay` runs the task at once in the calling thread, without Pub/Sub. For tests."""

    default_max_retries: int = 3
    """Tries after the first one, where the task does not say."""
    task_retry_backoff_base_seconds: float | None = 2
    """Wait before the first retry; doubled for each further one. None or 0: no wait."""
    task_retry_backoff_max_seconds: float = 60
    default_timeout_seconds: float | None = None
    """How long a body may run, where the task does not say. None: as long as it likes."""

    retry_minimum_backoff_seconds: int | None = 10
    """Pub/Sub's wait before it delivers a refused message again. None for both: Pub/Sub's own default."""
    retry_maximum_backoff_seconds: int | None = 600
    ack_deadline_seconds: int = 60
    """Set on subscriptions: how long Pub/Sub waits for an answer before it delivers again, 10 to 600."""
    message_retention_seconds: int = 7 * 86_400
    """Set on subscriptions: how long Pub/Sub keeps a message nobody took, 600 to 2,678,400 (31 days)."""
    dead_letter: bool = True
    """Give each subscription a dead-letter topic for messages that could not be read."""
    dead_letter_max_attempts: int = 20
    """Deliveries before a message goes there, 5 to 100."""
    run_queue_create_command_on_startup: bool = True
    """Make missing topics and subscriptions when a worker starts, and at a web process's first publish."""
    register_client_teardown: bool = True
    """Wait, at most `flush_seconds`, for publishes under way when the process ends."""
    flush_seconds: float = 5

    maximum_eta: timedelta | None = None
    """How far ahead a call may be deferred. None: as far as you like."""

    concurrency: int = 100
    """Tries a worker runs at the same time, unless `--concurrency` says otherwise."""
    threads: int = 16
    """How many of them may be sync functions, each in a thread, unless `--threads` says otherwise."""
    database_lanes: int = 16
    """Threads (and database connections) that coroutine tasks share for their ORM calls."""
    drain_seconds: float = 25
    """How long a worker that is asked to stop waits for running tries. Kubernetes kills after 30."""
    lease_seconds: float = 30
    """A running try whose worker has not been heard of for so long is taken for lost."""
    heartbeat_seconds: float = 10
    """How often a worker renews its leases. At most half of `lease_seconds`."""
    publish_grace_seconds: float = 60
    """A publish that was not confirmed for so long is made again."""
    lost_after_seconds: float = 3600
    """A confirmed message that nobody claimed for so long is published again; doubled each time, at most a day."""

    error_message_characters: int = 10_000
    """How much of an error's text a try keeps; what is longer loses its middle."""
    error_traceback_characters: int = 20_000
    """The same for its traceback."""

    allow_unverified: bool = False
    """True: take push and beat requests that nobody verified. Only behind a network that nobody else can reach."""
    health_token: str | None = None
    status_token: str | None = None
    """Token for the status endpoint; falls back to `health_token`."""
    autoclean_older_than: timedelta | None = None
    """How long ago a finished execution must have been created for `i3tasks clean` to delete it. None: it stays."""
    autoclean_failed_older_than: timedelta | None = None
    """The same for executions that failed. None: like the others."""
    health_window_minutes: int = 60
    health_stuck_minutes: int = 15
    health_failed_threshold: int = 5
    health_pending_age_seconds_threshold: int = 300

    def __post_init__(self) -> None:
        for name in ("other_queues", "schedules", "task_modules"):
            _require_tuple(self, name)
        _require_name("namespace", self.namespace)
        _require_queues(self)
        for item in fields(self):
            _require_kind(item.name, str(item.type), getattr(self, item.name))
        for name in self.task_modules:
            if not isinstance(name, str):
                raise ImproperlyConfigured(
                    f"task_modules must hold names of modules, such as 'shop.jobs', not {name!r}."
                )
        _require_consistency(self)

    @property
    def queues(self) -> tuple[PushQueue | PullQueue, ...]:
        """All queues, the default one first."""
        return (self.default_queue, *self.other_queues)


def _require_tuple(settings: I3TasksSettings, name: str) -> None:
    value = getattr(settings, name)
    if isinstance(value, list):
        object.__setattr__(settings, name, tuple(value))
    elif not isinstance(value, tuple):
        raise ImproperlyConfigured(f"{name} must be a tuple, for example ({value!r},), not {value!r}.")


def _require_queues(settings: I3TasksSettings) -> None:
    names: set[str] = set()
    for queue in settings.queues:
        if not isinstance(queue, (PushQueue, PullQueue)):
            raise ImproperlyConfigured(
                f"A queue must be a PullQueue(queue_name, subscription_name) or a "
                f"PushQueue(queue_name, subscription_name, push_endpoint), not {queue!r}."
            )
        if queue.queue_name.replace(".", "-") in names:
            raise ImproperlyConfigured(
                f"Two queues are named {queue.queue_name!r} (dots count as dashes). Give each a name of its own."
            )
        names.add(queue.queue_name.replace(".", "-"))
    for schedule in settings.schedules:
        if not isinstance(schedule, Schedule):
            raise ImproperlyConfigured(
                f"schedules must hold Schedule(module_name, func_name, cron, args, kwargs), not {schedule!r}."
            )
    keys = [schedule.key for schedule in settings.schedules]
    for schedule in settings.schedules:
        if keys.count(schedule.key) > 1:
            raise ImproperlyConfigured(
                f"Two schedules have the same name, or no name and the same fields: {schedule.key!r}. "
                "Give each a name of its own."
            )


def _require_kind(name: str, annotation: str, value: object) -> None:
    if annotation == "bool" and not isinstance(value, bool):  # "False" from the environment would count as true
        raise ImproperlyConfigured(f"{name} must be True or False, not {value!r}.")
    if annotation == "str | None" and not (value is None or isinstance(value, str)):
        raise ImproperlyConfigured(f"{name} must be text, or None.")
    if name in _RANGES and not (value is None and name in _MAY_BE_NONE):
        _require_number(name, value, is_whole=annotation.startswith("int"))


def _require_number(name: str, value: object, *, is_whole: bool) -> None:
    low, high = _RANGES[name]
    kinds = int if is_whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "whole number" if is_whole else "number"
        raise ImproperlyConfigured(f"{name} must be a {kind} from {low:.10g} to {high:.10g}, not {value!r}.")


def _require_consistency(settings: I3TasksSettings) -> None:
    minimum, maximum = settings.retry_minimum_backoff_seconds, settings.retry_maximum_backoff_seconds
    if (minimum is None) != (maximum is None):
        raise ImproperlyConfigured(
            "retry_minimum_backoff_seconds and retry_maximum_backoff_seconds go together: set both, or both to None."
        )
    if minimum is not None and maximum is not None and minimum > maximum:
        raise ImproperlyConfigured("retry_minimum_backoff_seconds must not exceed retry_maximum_backoff_seconds.")
    if settings.heartbeat_seconds * 2 > settings.lease_seconds:
        raise ImproperlyConfigured(
            "heartbeat_seconds must be at most half of lease_seconds, so that one late heartbeat loses no lease."
        )
    for name in ("autoclean_older_than", "autoclean_failed_older_than", "maximum_eta"):
        value = getattr(settings, name)
        if value is not None and (not isinstance(value, timedelta) or value <= timedelta(0)):
            raise ImproperlyConfigured(f"{name} must be a timedelta or None, and longer than nothing, not {value!r}.")

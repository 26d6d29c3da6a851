"""The queues and schedules of I3TASKS."""

# No `from __future__ import annotations`: a dataclass searches each annotation that is text, at every start.

from collections.abc import Iterator
from dataclasses import field, fields
from datetime import timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from ..core.frozen import dataclass
from .base import Checked, require_identity, require_name, require_url
from .retention import Retention, require_retention


@dataclass(frozen=True)
class PullQueue(Checked):
    """A topic whose subscription workers stream from (`i3tasks run-worker`)."""

    queue_name: str
    subscription_name: str
    retention: Retention | timedelta | None = None
    """How long after their end its executions are kept. None: as I3TASKS says of all."""

    def __post_init__(self) -> None:
        require_name("queue_name", self.queue_name)
        require_name("subscription_name", self.subscription_name)
        require_retention(f" of queue {self.queue_name!r}", self.retention)

    def __iter__(self) -> Iterator[str]:
        return iter((self.queue_name, self.subscription_name))


@dataclass(frozen=True)
class PushQueue(Checked):
    """A topic whose subscription POSTs each message to `push_endpoint`, the full URL of `tasks-push/`."""

    queue_name: str
    subscription_name: str
    push_endpoint: str | None = None
    """None: `tasks-push/` below the `endpoint` of I3TASKS."""
    service_account: str | None = None
    """E-mail of the service account whose token each push carries. None: the `service_account` of I3TASKS."""
    audience: str | None = None
    """The audience that the token names. None: the `audience` of I3TASKS, or else the push endpoint's URL."""
    retention: Retention | timedelta | None = None
    """How long after their end its executions are kept. None: as I3TASKS says of all."""

    def __post_init__(self) -> None:
        require_name("queue_name", self.queue_name)
        require_name("subscription_name", self.subscription_name)
        if self.push_endpoint is not None:
            require_url(
                f"push_endpoint of queue {self.queue_name!r}",
                self.push_endpoint,
                "https://shop.example.com/i3/tasks-push/",
            )
        require_identity(f" of queue {self.queue_name!r}", self.service_account, self.audience)
        require_retention(f" of queue {self.queue_name!r}", self.retention)

    def __iter__(self) -> Iterator[str | None]:
        return iter((self.queue_name, self.subscription_name, self.push_endpoint))


@dataclass(frozen=True)
class DatabaseQueue(Checked):
    """A queue without Pub/Sub: workers look for its tries in the database.

    For projects that have PostgreSQL and no cloud yet, and for tests. Beside the queries, it costs time: a call waits
    up to `poll_seconds` for a worker that is idle.
    """

    queue_name: str
    poll_seconds: float = 0.5
    """How often each idle worker looks, 0.05 to 3600. A worker that finds as many tries as it can run looks at once."""
    retention: Retention | timedelta | None = None
    """How long after their end its executions are kept. None: as I3TASKS says of all."""

    def __post_init__(self) -> None:
        require_name("queue_name", self.queue_name)
        require_retention(f" of queue {self.queue_name!r}", self.retention)
        seconds: object = self.poll_seconds
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0.05 <= seconds <= 3600:
            raise ImproperlyConfigured(
                f"poll_seconds of queue {self.queue_name!r} must be a number from 0.05 to 3600, not {seconds!r}."
            )


Queue = PushQueue  # the older name


@dataclass(frozen=True)
class Schedule(Checked):
    """Runs the task `module_name.func_name` with `args` and `kwargs` whenever `cron` is due."""

    module_name: str
    func_name: str
    cron: str
    """Five fields, or an alias such as "@daily"."""
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    name: str | None = None
    """The schedule's key. None: a hash of the other fields, so that a changed schedule counts as a new one."""
    time_zone: str | None = None
    """An IANA name such as "Europe/Berlin". None: the project's TIME_ZONE."""
    queue_name: str | None = None
    """None: the task's own queue."""
    enabled: bool = True
    catch_up: str = "latest"
    """Which missed slots run after a time without a beat: the "latest", "all" of them, or "none"."""

    def __post_init__(self) -> None:
        from ..core.schedule_fields import problems  # settings without schedules do not need it

        for name, problem in problems({item.name: getattr(self, item.name) for item in fields(self)}).items():
            known_as = self.name or f"{self.module_name}.{self.func_name}"
            raise ImproperlyConfigured(f"{name} of the schedule {known_as!r}: {problem}")

    def __iter__(self) -> Iterator[Any]:
        return iter((self.module_name, self.func_name, self.cron, self.args, self.kwargs))

    @property
    def key(self) -> str:
        """The schedule's key in the database: its name, or a hash of its fields."""
        from ..core.schedule_fields import hash_key

        return self.name or hash_key(*self, self.time_zone, self.queue_name)

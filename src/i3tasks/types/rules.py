"""The rules that a whole I3TasksSettings keeps."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

from .base import require_identity, require_name, require_url
from .queues import DatabaseQueue, PullQueue, PushQueue, Schedule
from .retention import require_age, require_retention

if TYPE_CHECKING:
    from .settings import I3TasksSettings

_FOREVER = 10 * 365 * 86_400.0
RANGES: dict[str, tuple[float, float]] = {
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
    "process_grace_seconds": (0, 86_400),
    "lease_seconds": (1, 86_400),
    "heartbeat_seconds": (0.1, 86_400),
    "publish_grace_seconds": (1, 86_400),
    "fallback_seconds": (0.1, 86_400),
    "priority_aging_seconds": (0.001, _FOREVER),
    "error_message_characters": (100, 10_000_000),
    "error_traceback_characters": (100, 10_000_000),
    "lost_after_seconds": (1, 86_400),
    "maximum_payload_bytes": (1_000, 200_000_000),
    "health_window_minutes": (1, 10_000_000),
    "health_stuck_minutes": (1, 10_000_000),
    "health_failed_threshold": (0, 10**9),
    "health_pending_age_seconds_threshold": (0, 10**9),
}
LONGEST_RELEASE = 200
_MAY_BE_NONE = {
    "task_retry_backoff_base_seconds",
    "default_timeout_seconds",
    "fallback_seconds",
    "priority_aging_seconds",
    "retry_minimum_backoff_seconds",
    "retry_maximum_backoff_seconds",
}


def check(settings: I3TasksSettings) -> None:
    """Raise ImproperlyConfigured for the first rule that is broken."""
    for name in ("other_queues", "schedules", "task_modules"):
        _require_tuple(settings, name)
    require_name("namespace", settings.namespace)
    _require_queues(settings)
    for item in fields(settings):
        _require_kind(item.name, item.type, getattr(settings, item.name))
    _require_doors(settings)
    if settings.release and (len(settings.release) > LONGEST_RELEASE or not settings.release.isprintable()):
        raise ImproperlyConfigured(
            f"release must be at most {LONGEST_RELEASE} characters on one line, such as '1.4.2' or a commit's hash, "
            f"not {settings.release[: LONGEST_RELEASE + 1]!r}."
        )
    if settings.log_format not in ("auto", "text", "json"):
        raise ImproperlyConfigured(f"log_format must be 'auto', 'text' or 'json', not {settings.log_format!r}.")
    for name in settings.task_modules:
        if not isinstance(name, str):
            raise ImproperlyConfigured(f"task_modules must hold names of modules, such as 'shop.jobs', not {name!r}.")
    _require_consistency(settings)


def _require_tuple(settings: I3TasksSettings, name: str) -> None:
    value = getattr(settings, name)
    if isinstance(value, list):
        object.__setattr__(settings, name, tuple(value))
    elif not isinstance(value, tuple):
        raise ImproperlyConfigured(f"{name} must be a tuple, for example ({value!r},), not {value!r}.")


def _require_queues(settings: I3TasksSettings) -> None:
    names: set[str] = set()
    for queue in settings.queues:
        if not isinstance(queue, (PushQueue, PullQueue, DatabaseQueue)):
            raise ImproperlyConfigured(
                f"A queue must be a PullQueue(queue_name, subscription_name), a "
                f"PushQueue(queue_name, subscription_name, push_endpoint) or a DatabaseQueue(queue_name), "
                f"not {queue!r}."
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


def _require_doors(settings: I3TasksSettings) -> None:
    """Check where push and beat requests go, and who may send them."""
    require_identity("", settings.service_account, settings.audience)
    if settings.certificates_url is not None:
        require_url("certificates_url", settings.certificates_url, "https://www.googleapis.com/oauth2/v1/certs")
    if settings.endpoint is not None:
        require_url("endpoint", settings.endpoint, "https://shop.example.com/i3/")
        if re.search(r"[?#]|/tasks-(push|beat)/?$", settings.endpoint):
            raise ImproperlyConfigured(
                "endpoint must be the URL below which i3tasks.urls is included, such as "
                f"'https://shop.example.com/i3/', without tasks-push/ and without a query, not {settings.endpoint!r}."
            )
    for queue in settings.queues:
        if isinstance(queue, PushQueue) and queue.push_endpoint is None and settings.endpoint is None:
            raise ImproperlyConfigured(
                f"The queue {queue.queue_name!r} has no push_endpoint. Set endpoint='https://shop.example.com/i3/' in "
                "I3TASKS, the URL below which i3tasks.urls is included, or give the queue a push_endpoint."
            )
    for name in ("beat_token", "health_token", "metrics_token", "status_token"):
        token = getattr(settings, name)
        if token is not None and not token.strip():  # as os.environ.get("TOKEN", "") gives where it is not set
            raise ImproperlyConfigured(f"{name} is empty. Give it a secret of 16 characters or more, or leave it out.")


def _require_kind(name: str, annotation: Any, value: object) -> None:
    if annotation is bool and not isinstance(value, bool):  # "False" from the environment would count as true
        raise ImproperlyConfigured(f"{name} must be True or False, not {value!r}.")
    if annotation == str | None and not (value is None or isinstance(value, str)):
        raise ImproperlyConfigured(f"{name} must be text, or None.")
    if name in RANGES and not (value is None and name in _MAY_BE_NONE):
        _require_number(name, value, is_whole=annotation in (int, int | None))


def _require_number(name: str, value: object, *, is_whole: bool) -> None:
    low, high = RANGES[name]
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
    furthest: object = settings.maximum_eta
    if furthest is not None and (not isinstance(furthest, timedelta) or furthest <= timedelta(0)):
        raise ImproperlyConfigured(
            f"maximum_eta must be a timedelta or None, and longer than nothing, not {furthest!r}."
        )
    for name in ("autoclean_older_than", "autoclean_failed_older_than"):
        require_age(name, getattr(settings, name))
    require_retention("", settings.retention)
    for name in ("autoclean_older_than", "autoclean_failed_older_than"):
        if settings.retention is not None and getattr(settings, name) is not None:
            raise ImproperlyConfigured(
                f"retention and {name} are both set. Leave one out: retention counts from the end of an execution, "
                f"{name} from its creation."
            )

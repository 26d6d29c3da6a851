"""i3tasks: background tasks for Django on Google Cloud Pub/Sub, async first.

The names below are loaded at first use (PEP 562), so that `settings.py` may import `i3tasks.types` without loading
models, the Pub/Sub client, or Django's app registry.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calls.base import Task
    from .calls.canvas import Signature, chain, group
    from .calls.decorators import TaskDecorator, task
    from .calls.handles import ChainHandle
    from .calls.schedules import adelete_schedule, aschedule_task, delete_schedule, schedule_task
    from .core.retry import RetryPolicy
    from .core.values import RESULT
    from .exceptions import I3TasksError, PermanentError, Retry, ScheduleError, Snooze
    from .metadata import TaskMetadata

__version__ = "1.0.0a1"

_HOMES = {
    "RESULT": "core.values",
    "ChainHandle": "calls.handles",
    "I3TasksError": "exceptions",
    "PermanentError": "exceptions",
    "Retry": "exceptions",
    "RetryPolicy": "core.retry",
    "ScheduleError": "exceptions",
    "Signature": "calls.canvas",
    "Snooze": "exceptions",
    "Task": "calls.base",
    "TaskDecorator": "calls.decorators",
    "TaskMetadata": "metadata",
    "adelete_schedule": "calls.schedules",
    "aschedule_task": "calls.schedules",
    "chain": "calls.canvas",
    "delete_schedule": "calls.schedules",
    "group": "calls.canvas",
    "schedule_task": "calls.schedules",
    "task": "calls.decorators",
}

__all__ = [
    "RESULT",
    "ChainHandle",
    "I3TasksError",
    "PermanentError",
    "Retry",
    "RetryPolicy",
    "ScheduleError",
    "Signature",
    "Snooze",
    "Task",
    "TaskDecorator",
    "TaskMetadata",
    "adelete_schedule",
    "aschedule_task",
    "chain",
    "delete_schedule",
    "group",
    "schedule_task",
    "task",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

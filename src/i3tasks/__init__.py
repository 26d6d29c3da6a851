"""i3tasks: background tasks for Django on Google Cloud Pub/Sub, async first.

The names below are loaded when first used (PEP 562), so that `settings.py` may import `i3tasks.types` without
loading models, the Pub/Sub client, or Django's app registry.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .canvas import Signature, chain, group
    from .definition import Task, TaskDecorator, task
    from .exceptions import I3TasksError, PermanentError, Retry, ScheduleError
    from .handles import ChainHandle
    from .metadata import TaskMetadata
    from .retry import RetryPolicy
    from .schedules import adelete_schedule, aschedule_task, delete_schedule, schedule_task
    from .values import RESULT

__version__ = "0.1.0"

_HOMES = {
    "RESULT": "values",
    "ChainHandle": "handles",
    "I3TasksError": "exceptions",
    "PermanentError": "exceptions",
    "Retry": "exceptions",
    "RetryPolicy": "retry",
    "ScheduleError": "exceptions",
    "Signature": "canvas",
    "Task": "definition",
    "TaskDecorator": "definition",
    "TaskMetadata": "metadata",
    "adelete_schedule": "schedules",
    "aschedule_task": "schedules",
    "chain": "canvas",
    "delete_schedule": "schedules",
    "group": "canvas",
    "schedule_task": "schedules",
    "task": "definition",
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

"""The class of tasks that this backend's `@task` makes: Django's, with the options of i3tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from django.utils.module_loading import import_string

from ..core.retry import RetryPolicy
from ..core.steps import AsSteps, Steppable
from ..registry import Isolation
from .framework import DEFAULT_TASK_BACKEND_ALIAS, DEFAULT_TASK_QUEUE_NAME, AnyResult, Task

Calls = Iterable[Sequence[Any] | Mapping[str, Any]]


# Before Django 6.1 and django-tasks 0.12 the framework knows no `task_class`: then `task_options` sets the same.
@dataclass(frozen=True, slots=True, kw_only=True)
class PubSubTask(Task):  # type: ignore[type-arg]  # generic in stubs only
    """A task of Django's framework with options of i3tasks, each as in i3tasks's own `@task`. None: the backend's.

    `timeout` is a number of seconds or a timedelta.
    """

    # Django 6.0 gives its own fields no defaults; later versions give them these.
    priority: int = 0
    backend: str = DEFAULT_TASK_BACKEND_ALIAS
    queue_name: str = DEFAULT_TASK_QUEUE_NAME
    run_after: datetime | None = None

    max_retries: int | None = None
    retry: RetryPolicy | None = None
    timeout: float | timedelta | None = None
    unique: bool | None = None
    run_once: bool | None = None
    isolation: Isolation | None = None
    on_success: AsSteps | None = None
    on_failure: Steppable | None = None

    def enqueue_many(self, calls: Calls) -> list[AnyResult]:
        """Enqueue many calls in one transaction: each item is a call's positional arguments, or a dict of keywords."""
        backend: Any = self.get_backend()
        results: list[AnyResult] = backend.enqueue_many(self, calls)
        return results

    async def aenqueue_many(self, calls: Calls) -> list[AnyResult]:
        """`enqueue_many` for coroutines."""
        backend: Any = self.get_backend()
        results: list[AnyResult] = await backend.aenqueue_many(self, calls)
        return results

    def __reduce__(self) -> Any:
        """Pickle the task by the path of its function, which is a task there."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return _restored, (type(self), {**values, "func": self.module_path})


OPTIONS = tuple(field.name for field in fields(PubSubTask) if field.name not in {own.name for own in fields(Task)})
"""The names of the options that a PubSubTask has beside Django's."""


def _restored(kind: type[PubSubTask], values: dict[str, Any]) -> PubSubTask:
    found = import_string(values["func"])
    if not isinstance(found, Task):
        raise ValueError(f"{values['func']!r} is no task any more. Was its `@task` removed?")
    return kind(**{**values, "func": found.func})

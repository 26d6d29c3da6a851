"""Tasks of Django's framework in the registry, where workers, schedules and workflows find them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..calls.base import AsyncTask, SyncTask
from ..calls.base import Task as OwnTask
from ..calls.decorators import options_of
from ..conf import get_config
from ..exceptions import TaskDefinitionError
from ..registry import TaskSpec, add, add_finder, checked, find
from .bodies import OF_THE_WORKER, body_of
from .framework import AnyTask, InvalidTask, Task
from .options import NO_OPTIONS, BackendOptions, seconds
from .queues import own_name
from .tasks import OPTIONS

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "_i3tasks_options"


@dataclass(frozen=True, slots=True)
class DeclaredSpec(TaskSpec):
    """The registered form of a Django task. `function` is its body, made to run as a task of i3tasks."""

    declared: AnyTask | None = None

    @property
    def metadata_name(self) -> str:
        """The keyword of the metadata: a text that is no identifier, so that no parameter of the task can have it."""
        return OF_THE_WORKER

    @property
    def given(self) -> tuple[str, ...]:
        """No parameter: the signature of `function` shows neither the metadata nor the context."""
        return ()


def task_options(**options: Any) -> Callable[[F], F]:
    """Give a Django task the options of i3tasks, where `@task` takes none but Django's (Django 6.0).

        @task
        @task_options(max_retries=3, timeout=60)
        def send(...): ...

    Takes the options of PubSubTask. Raises TaskDefinitionError for others.
    """
    for name in options:
        if name not in OPTIONS:
            raise TaskDefinitionError(f"task_options takes {', '.join(OPTIONS)}; it does not take {name!r}.")

    def decorate(function: F) -> F:
        target: Any = function
        if not inspect.isfunction(target):
            raise TaskDefinitionError("Put @task_options below @task, right above the function.")
        setattr(function, _ATTRIBUTE, options)
        return function

    return decorate


def as_task(task: AnyTask) -> OwnTask[Any, Any]:
    """The Django task as one of i3tasks: with `delay`, `s()` for chains and groups, and for `schedule_task`.

    Its own backend does not matter. Raises InvalidTask if i3tasks can't run it.
    """
    if not isinstance(task, Task):
        raise InvalidTask(f"as_task takes a task of Django's framework, not {task!r:.80}.")
    spec = spec_of(task)
    return AsyncTask(spec) if spec.is_coroutine else SyncTask(spec)


def spec_of(task: AnyTask, defaults: BackendOptions = NO_OPTIONS) -> TaskSpec:
    """The registered form of the task, which is registered now unless it was before. Raises InvalidTask.

    `defaults` are the options of its backend, which count where the task has none of its own.
    """
    known = find(task.func.__module__, task.func.__name__)
    if known is not None and inspect.unwrap(known.function) is inspect.unwrap(task.func):
        return known
    declared = getattr(sys.modules.get(task.func.__module__), task.func.__name__, None)
    if isinstance(declared, Task) and declared.func is task.func:
        task, defaults = declared, NO_OPTIONS  # declared for another backend: all processes register it alike
    try:
        plain = checked(task.func, options_of(_options(task, defaults)))
        options = replace(plain.options, bind=task.takes_context)
        return add(DeclaredSpec(plain.module_name, plain.func_name, body_of(task), options, task))
    except TaskDefinitionError as error:
        raise InvalidTask(str(error)) from error


def row_options(spec: TaskSpec, backend: str, defaults: BackendOptions) -> dict[str, Any]:
    """The options `retry` and `timeout` for a call's row, if another backend than the task's own enqueues the call."""
    declared: AnyTask | None = getattr(spec, "declared", None)
    if declared is None or declared.backend == backend:
        return {}
    here = replace(spec, options=options_of(_options(declared, defaults)))
    policy, timeout = here.policy({}), here.timeout({})
    said = {} if policy == spec.policy({}) else {"retry": policy.as_json()}
    return said if timeout is None or timeout == spec.timeout({}) else {**said, "timeout": timeout}


def _options(task: AnyTask, defaults: BackendOptions) -> dict[str, Any]:
    """The options of `@task` of i3tasks. A task that was moved here from another backend has none but Django's."""
    beside = getattr(inspect.unwrap(task.func), _ATTRIBUTE, {})
    queue_name = own_name(task.queue_name, defaults.queues)
    is_default = queue_name == get_config().settings.default_queue.queue_name
    found: dict[str, Any] = {"queue_name": None if is_default else queue_name, "priority": task.priority}
    for name in OPTIONS:
        own = getattr(task, name, None)
        found[name] = own if own is not None else beside.get(name)
    for name in () if found["run_once"] else ("max_retries", "retry"):
        if found[name] is None:
            found[name] = getattr(defaults, name)
    found["timeout"] = defaults.timeout if found["timeout"] is None else found["timeout"]
    found["timeout"] = seconds(found["timeout"])
    return {name: value for name, value in found.items() if value is not None}


def _register(found: Any) -> None:
    """Register a Django task of another backend that a row names: `using(backend=...)` has sent the call here."""
    if isinstance(found, Task):
        spec_of(found)


add_finder(_register)

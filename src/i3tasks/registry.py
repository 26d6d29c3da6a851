"""The tasks that this process knows: name -> function and options.

A task's name is its module (`task_path` of a row) and its function (`task_name`). Only what is registered here ever
runs. Registering happens when a module with `@task` in it is imported; `discover` imports them all at start-up.
"""

from __future__ import annotations

import inspect
import math
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Literal, get_args

from django.apps import apps
from django.utils.module_loading import module_has_submodule

from .conf import get_config
from .exceptions import TaskDefinitionError, UnknownTaskError
from .retry import RetryPolicy
from .steps import Step

Isolation = Literal["thread", "process"]

RENAMED_MODULES = {"django_i3tasks.tasks": "i3tasks.tasks"}
"""Modules whose tasks older rows and schedules still name."""


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What `@task(...)` was given. None always means: as I3TASKS says."""

    bind: bool = False
    queue_name: str | None = None
    max_retries: int | None = None
    retry: RetryPolicy | None = None
    run_once: bool = False  # wins over whatever a call says
    unique: bool = False
    timeout: float | None = None  # seconds
    priority: int = 0
    isolation: Isolation = "thread"
    encoding: str = "utf-8"
    project_id: str | None = None
    topic_name: str | None = None
    subscription_name: str | None = None
    on_success: tuple[Step, ...] = ()
    on_failure: Step | None = None


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One registered task."""

    module_name: str
    func_name: str
    function: Callable[..., Any]
    options: TaskOptions = field(default_factory=TaskOptions)

    @property
    def path(self) -> str:
        """`module.function`, the name people know the task by."""
        return f"{self.module_name}.{self.func_name}"

    @property
    def is_coroutine(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    def policy(self, overrides: dict[str, Any]) -> RetryPolicy:
        """The retry policy of a call of this task whose row carries `overrides`."""
        of_call = _stored_policy(overrides.get("retry"))
        base = of_call or self.options.retry or default_policy()
        # A call's policy is a whole one: the task's own max_retries has no say in it.
        max_retries = _override(overrides, "max_retries", None if of_call else self.options.max_retries)
        if self.options.run_once:
            max_retries = 0
        return base if max_retries is None else replace(base, max_retries=max_retries)

    def timeout(self, overrides: dict[str, Any]) -> float | None:
        """How many seconds the body may run."""
        timeout = _override(overrides, "timeout", self.options.timeout)
        return get_config().settings.default_timeout_seconds if timeout is None else timeout


def default_policy() -> RetryPolicy:
    """The retry policy that I3TASKS describes."""
    settings = get_config().settings
    return RetryPolicy(
        max_retries=settings.default_max_retries,
        base_seconds=settings.task_retry_backoff_base_seconds,
        max_seconds=settings.task_retry_backoff_max_seconds,
    )


def policy_of(module_name: str, func_name: str, overrides: dict[str, Any]) -> RetryPolicy:
    """The retry policy of a stored call, also when its task is not (or no longer) registered."""
    spec = find(module_name, func_name) or TaskSpec(module_name, func_name, _nothing)
    return spec.policy(overrides)


def register(function: Callable[..., Any], options: TaskOptions) -> TaskSpec:
    """Make `function` a task. Raises TaskDefinitionError when a worker could not find it again by its name."""
    for problem in option_problems(options):
        raise TaskDefinitionError(f"A task's {problem}.")
    if options.isolation == "process" and inspect.iscoroutinefunction(function):
        raise TaskDefinitionError(
            f"{function.__qualname__} is a coroutine function, which runs in the event loop. isolation='process' takes "
            "a plain `def`."
        )
    module_name, func_name = _require_findable(function)
    spec = TaskSpec(module_name, func_name, function, options)
    with _lock:
        other = _tasks.get((module_name, func_name))
        if other is not None and not _is_reload(other, spec):
            raise TaskDefinitionError(
                f"There are two different tasks named {spec.path}: one at {_where(other.function)}, one at "
                f"{_where(function)}. Rename one of them."
            )
        _tasks[module_name, func_name] = spec
    return spec


def find(module_name: str, func_name: str) -> TaskSpec | None:
    """The task of that name, if this process has imported it."""
    return _tasks.get((RENAMED_MODULES.get(module_name, module_name), func_name))


def load(module_name: str, func_name: str) -> TaskSpec:
    """The task that a *row* names; its module is imported when it lies in an installed app.

    Raises UnknownTaskError. Never call this with what only a message says.
    """
    spec = find(module_name, func_name)
    if spec is None and _lies_in_installed_app(module_name):
        try:
            import_module(RENAMED_MODULES.get(module_name, module_name))
        except (
            Exception,
            SystemExit,
        ) as error:  # a script without its `if __name__` ends the process it is imported in
            raise UnknownTaskError(f"The module {module_name} of a stored task can't be imported: {error}") from error
        spec = find(module_name, func_name)
    if spec is None:
        raise UnknownTaskError(
            f"No task {module_name}.{func_name} is registered. Was it renamed, or is its module missing from "
            f"`task_modules` of I3TASKS?"
        )
    return spec


def all_tasks() -> Iterator[TaskSpec]:
    """Every registered task, by name."""
    return iter(sorted(_tasks.values(), key=lambda spec: spec.path))


def discover() -> None:
    """Import the `tasks` module of each installed app, and the modules that I3TASKS names.

    An error inside such a module is the project's own and is not swallowed.
    """
    for app_config in apps.get_app_configs():
        if module_has_submodule(import_module(app_config.name), "tasks"):  # False for an app that is one file
            import_module(f"{app_config.name}.tasks")
    for name in get_config().settings.task_modules:
        import_module(name)


_tasks: dict[tuple[str, str], TaskSpec] = {}
_lock = threading.Lock()


def _nothing() -> None:
    """Stands in for a function that is not here."""


def _override(overrides: dict[str, Any], name: str, otherwise: Any) -> Any:
    """What a row says, where that makes sense: whatever else somebody wrote into it must not stop a worker."""
    value = overrides.get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
    return value if is_number else otherwise


def _stored_policy(stored: Any) -> RetryPolicy | None:
    """The policy of a call's own, unless what the row holds is none."""
    try:
        return RetryPolicy.from_json(stored) if stored else None
    except (TypeError, ValueError, AttributeError):
        return None


def _require_findable(function: Callable[..., Any]) -> tuple[str, str]:
    if not inspect.isfunction(function):
        raise TaskDefinitionError(f"@task decorates a function, not {function!r}. Put it above a plain `def`.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TaskDefinitionError(
            f"{function.__qualname__} is a generator, which can't be a task. Return a list instead."
        )
    if function.__qualname__ != function.__name__ or function.__name__ == "<lambda>":
        raise TaskDefinitionError(
            f"{function.__module__}.{function.__qualname__} is not at the top level of its module, so a worker could "
            "not find it. Move the function there."
        )
    module_name = _importable_name(function.__module__)
    for name in (module_name, function.__name__):
        if len(name) > 256:
            raise TaskDefinitionError(f"The name {name!r} is longer than 256 characters. Shorten it.")
    return module_name, function.__name__


def option_problems(options: Any) -> Iterator[str]:
    """What is wrong with the options of a task, or of a call; None stands for one that is not given."""
    for name, low, high in (("max_retries", 0, math.inf), ("priority", -100, 100)):
        value = getattr(options, name)
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (is_whole and low <= value <= high):
            limits = f"of {low} or more" if high == math.inf else f"from {low} to {high}"
            yield f"{name} must be a whole number {limits}, not {value!r}"
    timeout = options.timeout
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and 0 < timeout < math.inf):
        yield f"timeout must be a number of seconds above 0, not {timeout!r}"
    retry = getattr(options, "retry", None)
    if retry is not None and not isinstance(retry, RetryPolicy):
        yield f"retry must be a RetryPolicy, not {retry!r}"
    isolation = getattr(options, "isolation", "thread")
    if isolation not in get_args(Isolation):
        yield f"isolation must be 'thread' or 'process', not {isolation!r}"


def _importable_name(module_name: str) -> str:
    """`__main__` under the name that other processes would import it by, where it has one (`python -m`)."""
    if module_name != "__main__":
        return module_name
    module_spec = getattr(sys.modules["__main__"], "__spec__", None)
    if module_spec is None:
        raise TaskDefinitionError(
            "A task can't be defined in the script that is run, because a worker could not import it. Move it to a "
            "module such as `tasks.py` of an app."
        )
    return str(module_spec.name)


def _is_reload(old: TaskSpec, new: TaskSpec) -> bool:
    """The same `def` once more (importlib.reload, an autoreloader), not another file's function of that name."""
    return old.function.__code__.co_filename == new.function.__code__.co_filename


def _lies_in_installed_app(module_name: str) -> bool:
    name = RENAMED_MODULES.get(module_name, module_name)
    return any(name == app.name or name.startswith(f"{app.name}.") for app in apps.get_app_configs())


def _where(function: Callable[..., Any]) -> str:
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"

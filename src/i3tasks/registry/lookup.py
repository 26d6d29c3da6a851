"""The registered tasks, and the lookup of the tasks that rows name."""

from __future__ import annotations

import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from types import CodeType
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.utils.module_loading import module_has_submodule

from ..conf import WrongSettings, get_config
from ..exceptions import TaskDefinitionError, UnknownTaskError
from .definition import checked
from .specs import TaskOptions, TaskSpec

if TYPE_CHECKING:
    from ..core.concealing import Conceal
    from ..core.retry import RetryPolicy

RENAMED_MODULES = {"django_i3tasks.tasks": "i3tasks.tasks"}
"""Old module names that rows and schedules may still hold, and the modules that have their tasks now."""

_tasks: dict[tuple[str, str], TaskSpec] = {}
_discovered: set[tuple[str, str]] = set()
_finders: list[Callable[[Any], None]] = []
_lock = threading.Lock()


def register(function: Callable[..., Any], options: TaskOptions) -> TaskSpec:
    """Make `function` a task. Raises TaskDefinitionError when a worker could not find it again by its name."""
    return add(checked(function, options))


def add(spec: TaskSpec) -> TaskSpec:
    """Register a task. Raises TaskDefinitionError if its name is taken."""
    name = (spec.module_name, spec.func_name)
    with _lock:
        other = _tasks.get(name)
        if other is not None and not _is_reload(other, spec):
            raise TaskDefinitionError(
                f"There are two different tasks named {spec.path}: one at {_where(other.function)}, one at "
                f"{_where(spec.function)}. Rename one of them."
            )
        _tasks[name] = spec
    return spec


def add_finder(finder: Callable[[Any], None]) -> None:
    """Have `load` call `finder` with the object that a module has under a task's name, before it refuses it."""
    _finders.append(finder)


def find(module_name: str, func_name: str) -> TaskSpec | None:
    """The task of that name, if this process has imported it."""
    return _tasks.get((RENAMED_MODULES.get(module_name, module_name), func_name))


def policy_of(module_name: str, func_name: str, overrides: Any) -> RetryPolicy:
    """The retry policy of a stored call, also when its task is not (or no longer) registered."""
    spec = find(module_name, func_name) or TaskSpec(module_name, func_name, _nothing)
    return spec.policy(overrides)


def concealer_of(module_name: str, func_name: str, args: Any, kwargs: Any) -> Conceal | None:
    """A function that hides the call's sensitive arguments in a text; None where there are none."""
    spec = find(module_name, func_name)
    try:
        return None if spec is None else spec.concealer(args, kwargs)
    except Exception:  # values that can't be read, so that they can't be told from others
        from ..core.concealing import HIDDEN

        return lambda text: HIDDEN


def registered(module_name: str, func_name: str) -> TaskSpec:
    """The task of that name, if this process has imported it: nothing is imported. Raises UnknownTaskError."""
    spec = find(module_name, func_name)
    if spec is None:
        raise UnknownTaskError(
            f"No task {module_name}.{func_name} is registered. Was it renamed? Its module must be `tasks` of an app in "
            "INSTALLED_APPS, or be named in `task_modules` of I3TASKS."
        )
    return spec


def load(module_name: str, func_name: str) -> TaskSpec:
    """The task that a *row* names; its module is imported when it lies in an installed app.

    Raises UnknownTaskError. Never call this with what only a message says.
    """
    spec = find(module_name, func_name)
    if spec is None and _lies_in_installed_app(module_name):
        try:
            import_module(RENAMED_MODULES.get(module_name, module_name))
        except BaseException as error:  # importing a script without `if __name__ ...` may call sys.exit()
            raise UnknownTaskError(
                f"The module {module_name} of a stored task can't be imported: {type(error).__name__}: {error}. Mend "
                "it, or deploy the release that has it."
            ) from error
        spec = find(module_name, func_name)
    if spec is None:
        for finder in _finders:
            finder(getattr(sys.modules.get(module_name), func_name, None))
    return spec or registered(module_name, func_name)


def all_tasks() -> Iterator[TaskSpec]:
    """Every registered task, by name."""
    return iter(sorted(_tasks.values(), key=lambda spec: spec.path))


def discover() -> None:
    """Import the `tasks` module of each installed app, and the modules that I3TASKS names.

    Errors raised by such a module are not caught. Raises WrongSettings for a module in I3TASKS that is not there.
    """
    for app_config in apps.get_app_configs():
        if module_has_submodule(import_module(app_config.name), "tasks"):  # False for an app that is one file
            import_module(f"{app_config.name}.tasks")
    for name in get_config().settings.task_modules:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # of a module that it imports
            raise WrongSettings(
                f"task_modules of I3TASKS names {name!r}, and there is no such module. Correct the name."
            ) from error
    _discovered.update(_tasks)


def require_discoverable(spec: TaskSpec) -> None:
    """Raise UnknownTaskError for a task of a module beside settings.py that no worker would import."""
    if (spec.module_name, spec.func_name) in _discovered:
        return
    package = spec.module_name.rpartition(".")[0]
    if not package or package != settings_package():
        return
    if not _lies_in_installed_app(spec.module_name):
        raise UnknownTaskError(
            f"No worker would find the task {spec.path}: {package!r} is no installed app. Add {package!r} to "
            f"INSTALLED_APPS, or {spec.module_name!r} to `task_modules` of I3TASKS."
        )


def settings_package() -> str:
    """The package that settings.py lies in; "" if it lies in none."""
    return os.environ.get("DJANGO_SETTINGS_MODULE", "").rpartition(".")[0]


def _nothing() -> None:
    """The function of a task that this process does not know."""


def _is_reload(old: TaskSpec, new: TaskSpec) -> bool:
    """Whether this is the same function imported again (importlib.reload, an autoreloader), not one of another file."""
    return _code(old.function).co_filename == _code(new.function).co_filename


def _lies_in_installed_app(module_name: str) -> bool:
    name = RENAMED_MODULES.get(module_name, module_name)
    return any(name == app.name or name.startswith(f"{app.name}.") for app in apps.get_app_configs())


def _where(function: Callable[..., Any]) -> str:
    return f"{_code(function).co_filename}:{_code(function).co_firstlineno}"


def _code(function: Callable[..., Any]) -> CodeType:
    """The code of the function itself, below its decorators."""
    code: CodeType = inspect.unwrap(function).__code__
    return code

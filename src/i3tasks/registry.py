"""The tasks that this process knows: name -> function and options.

A task's name is its module (`task_path` of a row) and its function (`task_name`). Only registered tasks run. A task is
registered when the module with its `@task` is imported; `discover` imports all such modules at start-up.
"""

from __future__ import annotations

import inspect
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import CodeType
from typing import Any, Literal, get_args

from django.apps import apps
from django.utils.module_loading import module_has_submodule

from .conf import get_config
from .core import binding, concealing, schedule_fields
from .core.concealing import HIDDEN, Conceal
from .core.retry import RetryPolicy
from .core.steps import Step
from .exceptions import TaskDefinitionError, UnknownTaskError

Isolation = Literal["thread", "process"]

METADATA = "task_metadata"
"""The parameter that a body declared with `bind=True` has."""

RENAMED_MODULES = {"django_i3tasks.tasks": "i3tasks.tasks"}
"""Old module names that rows and schedules may still hold, and the modules that have their tasks now."""


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """The options of `@task(...)`. None always means: as I3TASKS says."""

    bind: bool = False
    queue_name: str | None = None
    max_retries: int | None = None
    retry: RetryPolicy | None = None
    run_once: bool = False  # wins over a call's own retries
    unique: bool = False
    timeout: float | None = None  # seconds
    priority: int = 0
    isolation: Isolation = "thread"
    sensitive: tuple[str, ...] = ()
    cron: str | None = None
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
        """`module.function`, as logs and errors name the task."""
        return f"{self.module_name}.{self.func_name}"

    def queue_name(self, asked: str | None = None) -> str | None:
        """The queue of a call: `asked`, else the task's own, else the default one. Raises UnknownQueueError.

        None: the call goes to the task's own topic (`topic_name`) and to no queue.
        """
        name = asked or self.options.queue_name
        return None if self.options.topic_name and not name else get_config().queue(name).name

    @property
    def is_coroutine(self) -> bool:
        return inspect.iscoroutinefunction(self.function)

    def argument_problem(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Why the task does not take these arguments, in a sentence; "" if it does."""
        found = binding.problem(self.function, args, kwargs, self.given)
        return f"{self.path} does not take these arguments: {found}." if found else ""

    def concealed(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The stored arguments of a call as people may see them."""
        return concealing.concealed(self.function, self.options.sensitive, args, kwargs)

    def concealer(self, args: Any, kwargs: Any) -> Conceal | None:
        """A function that hides the call's sensitive arguments in a text; None for a task without such."""
        return concealing.concealer(self.function, self.options.sensitive, args, kwargs)

    @property
    def given(self) -> tuple[str, ...]:
        """The parameters that the worker fills."""
        return (METADATA,) if self.options.bind else ()

    @property
    def gets_metadata_first(self) -> bool:
        """Whether `task_metadata` is the first parameter of the function that was decorated."""
        first = next(iter(inspect.signature(inspect.unwrap(self.function)).parameters), None)
        return self.options.bind and first == METADATA

    def policy(self, overrides: Any) -> RetryPolicy:
        """The retry policy of a call of this task; `overrides` are the options that its row carries."""
        of_call = _stored_policy(_options(overrides).get("retry"))
        base = of_call or self.options.retry or default_policy()
        # A call's policy is complete: the task's own max_retries does not count then.
        max_retries = _override(overrides, "max_retries", None if of_call else self.options.max_retries)
        if self.options.run_once:
            max_retries = 0
        return base if max_retries is None else replace(base, max_retries=max_retries)

    def timeout(self, overrides: Any) -> float | None:
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


def policy_of(module_name: str, func_name: str, overrides: Any) -> RetryPolicy:
    """The retry policy of a stored call, also when its task is not (or no longer) registered."""
    spec = find(module_name, func_name) or TaskSpec(module_name, func_name, _nothing)
    return spec.policy(overrides)


def register(function: Callable[..., Any], options: TaskOptions) -> TaskSpec:
    """Make `function` a task. Raises TaskDefinitionError when a worker could not find it again by its name."""
    return add(checked(function, options))


def checked(function: Callable[..., Any], options: TaskOptions) -> TaskSpec:
    """The task that `function` would be. Raises TaskDefinitionError."""
    for problem in option_problems(options):
        raise TaskDefinitionError(f"A task's {problem}.")
    if options.isolation == "process" and inspect.iscoroutinefunction(function):
        raise TaskDefinitionError(
            f"{function.__qualname__} is a coroutine function, which runs in the event loop. isolation='process' takes "
            "a plain `def`."
        )
    module_name, func_name = _require_findable(function)
    if options.bind:
        function = binding.by_keyword(function, METADATA)
    if options.bind and not binding.takes(function, METADATA):
        raise TaskDefinitionError(
            f"{function.__qualname__} has bind=True, so its body is given task_metadata. Add a parameter of that name."
        )
    spec = TaskSpec(module_name, func_name, function, options)
    if options.cron is not None and (problem := spec.argument_problem((), {})):
        raise TaskDefinitionError(f"{problem} Its cron calls it without any: make a Schedule with arguments instead.")
    for name in options.sensitive:
        if not binding.takes_argument(function, name):
            raise TaskDefinitionError(
                f"{function.__qualname__} has no parameter {name!r}, which `sensitive` names. Write the name as it "
                "stands in the function."
            )
    return spec


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
    """Have `load` call `finder` with what a module has under a task's name, before it is said to be no task."""
    _finders.append(finder)


def find(module_name: str, func_name: str) -> TaskSpec | None:
    """The task of that name, if this process has imported it."""
    return _tasks.get((RENAMED_MODULES.get(module_name, module_name), func_name))


def concealer_of(module_name: str, func_name: str, args: Any, kwargs: Any) -> Conceal | None:
    """A function that hides the call's sensitive arguments in a text; None where there are none."""
    spec = find(module_name, func_name)
    try:
        return None if spec is None else spec.concealer(args, kwargs)
    except Exception:  # values that can't be read, so that they can't be told from others
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
                f"The module {module_name} of a stored task can't be imported: {type(error).__name__}: {error}"
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

    Errors raised by such a module are not caught.
    """
    for app_config in apps.get_app_configs():
        if module_has_submodule(import_module(app_config.name), "tasks"):  # False for an app that is one file
            import_module(f"{app_config.name}.tasks")
    for name in get_config().settings.task_modules:
        import_module(name)
    _discovered.update(_tasks)


def require_discoverable(spec: TaskSpec) -> None:
    """Raise UnknownTaskError for a task of a module beside settings.py that no worker would import."""
    package = spec.module_name.rpartition(".")[0]
    if not package or package != settings_package() or (spec.module_name, spec.func_name) in _discovered:
        return
    if not _lies_in_installed_app(spec.module_name):
        raise UnknownTaskError(
            f"No worker would find the task {spec.path}: {package!r} is no installed app. Add {package!r} to "
            f"INSTALLED_APPS, or {spec.module_name!r} to `task_modules` of I3TASKS."
        )


def settings_package() -> str:
    """The package that settings.py lies in; "" if it lies in none."""
    return os.environ.get("DJANGO_SETTINGS_MODULE", "").rpartition(".")[0]


_tasks: dict[tuple[str, str], TaskSpec] = {}
_discovered: set[tuple[str, str]] = set()
_finders: list[Callable[[Any], None]] = []
_lock = threading.Lock()


def _nothing() -> None:
    """The function of a task that this process does not know."""


def _options(stored: Any) -> dict[str, Any]:
    """The options that a row holds; none if it holds something else, which must not stop a worker."""
    return stored if isinstance(stored, dict) else {}


def _override(overrides: Any, name: str, otherwise: Any) -> Any:
    """The number that a row holds under `name`; `otherwise` if it holds no valid one."""
    value = _options(overrides).get(name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
    return value if is_number else otherwise


def _stored_policy(stored: Any) -> RetryPolicy | None:
    """The retry policy that a call's row holds; None if it holds no valid one."""
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
    """A sentence for each wrong option of a task or a call. None stands for an option that is not given."""
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
    sensitive = getattr(options, "sensitive", ())
    if not isinstance(sensitive, tuple) or not all(isinstance(name, str) for name in sensitive):
        yield f"sensitive must be a tuple of parameters' names, such as ('card',), not {sensitive!r}"
    cron = getattr(options, "cron", None)
    if cron is not None and (problem := schedule_fields.problems({"cron": cron}).get("cron")):
        yield f"cron {cron!r:.200} can't be used: {problem}"
    if getattr(options, "topic_name", None) and options.queue_name:
        yield "queue_name and topic_name both say where its calls go: give one of them"


def _importable_name(module_name: str) -> str:
    """The module name by which other processes can import the function; differs for `__main__` (`python -m`)."""
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
    """Whether this is the same function imported again (importlib.reload, an autoreloader), not one of another file."""
    return _code(old.function).co_filename == _code(new.function).co_filename


def _lies_in_installed_app(module_name: str) -> bool:
    name = RENAMED_MODULES.get(module_name, module_name)
    return any(name == app.name or name.startswith(f"{app.name}.") for app in apps.get_app_configs())


def _where(function: Callable[..., Any]) -> str:
    return f"{_code(function).co_filename}:{_code(function).co_firstlineno}"


def _code(function: Callable[..., Any]) -> CodeType:
    """The code of the function itself, whatever decorators it has."""
    code: CodeType = inspect.unwrap(function).__code__
    return code

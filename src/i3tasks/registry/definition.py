"""The rules for tasks: a function that a worker finds again by its name, with valid options."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, get_args

from ..core import binding
from ..exceptions import TaskDefinitionError
from .specs import METADATA, Isolation, TaskOptions, TaskSpec


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


def option_problems(options: Any) -> Iterator[str]:
    """A sentence for each wrong option of a task or a call. None stands for an option that is not given."""
    for name in ("bind", "unique", "run_once"):
        value = getattr(options, name, None)
        if value is not None and not isinstance(value, bool):
            yield f"{name} must be True or False, not {value!r:.80}"
    for name in ("queue_name", "project_id", "topic_name", "subscription_name", "idempotency_key"):
        value = getattr(options, name, None)
        if value is not None and not (isinstance(value, str) and value):
            yield f"{name} must be text that is not empty, not {value!r:.80}"
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
    if retry is not None and not _is_policy(retry):
        yield f"retry must be a RetryPolicy, not {retry!r}"
    if getattr(options, "run_once", False) and (options.max_retries or retry is not None):
        yield "run_once has no further try: leave max_retries and retry out"
    isolation = getattr(options, "isolation", "thread")
    if isolation not in get_args(Isolation):
        yield f"isolation must be 'thread' or 'process', not {isolation!r}"
    sensitive = getattr(options, "sensitive", ())
    if not isinstance(sensitive, tuple) or not all(isinstance(name, str) for name in sensitive):
        yield f"sensitive must be a tuple of parameters' names, such as ('card',), not {sensitive!r}"
    cron = getattr(options, "cron", None)
    if cron is not None and (problem := _cron_problem(cron)):
        yield f"cron {cron!r:.200} can't be used: {problem}"
    if getattr(options, "topic_name", None) and options.queue_name:
        yield "queue_name and topic_name both say where its calls go: give one of them"


def _is_policy(value: object) -> bool:
    from ..core.retry import RetryPolicy  # late: most tasks have none of their own

    return isinstance(value, RetryPolicy)


def _cron_problem(cron: object) -> str | None:
    from ..core.schedule_fields import problems  # tasks without a cron do not need it

    return problems({"cron": cron}).get("cron")


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

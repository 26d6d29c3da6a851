"""The body of a Django task as i3tasks runs it: with its context, and with the result that Django allows."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async

from ..conf import get_config
from ..core.values import encode
from ..exceptions import ResultUnavailable
from ..metadata import TaskMetadata
from .framework import AnyContext, AnyTask, TaskContext, normalize_json
from .results import result_of

OF_THE_WORKER = "metadata of the worker"
"""The keyword by which a body gets its metadata: no name, so that no parameter of a task has it."""


def body_of(task: AnyTask) -> Callable[..., Any]:
    """The task's function. One that takes a context is given it in exchange for the worker's metadata."""
    function = task.func

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        metadata = kwargs.pop(OF_THE_WORKER, None)
        context = () if metadata is None else (_context(task, metadata),)
        return _normalized(task, function(*context, *args, **kwargs))

    @functools.wraps(function)
    async def arun(*args: Any, **kwargs: Any) -> Any:
        metadata = kwargs.pop(OF_THE_WORKER, None)
        context = () if metadata is None else (await sync_to_async(_context)(task, metadata),)
        return _normalized(task, await function(*context, *args, **kwargs))

    body: Callable[..., Any] = arun if inspect.iscoroutinefunction(function) else run
    if task.takes_context:
        signature = inspect.signature(function)
        _, *others = signature.parameters.values()
        body.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]  # what callers give
    return body


def _context(task: AnyTask, metadata: TaskMetadata) -> AnyContext:
    return TaskContext(task_result=result_of(metadata.task_uuid, task.backend))


def _normalized(task: AnyTask, value: Any) -> Any:
    """The result as JSON. Raises ResultUnavailable, after which no try follows: the body has run to its end."""
    try:
        plain: Any = normalize_json(value)
        # normalize_json lets values pass that no database keeps as JSON: numbers as keys, NaN, text with a NUL.
        encode(plain, "the result", limit=get_config().settings.maximum_payload_bytes)
    except (TypeError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise ResultUnavailable(
            f"{task.module_path} returned a {type(value).__name__} that JSON can't hold: {reason}. Return plain data."
        ) from error
    return plain

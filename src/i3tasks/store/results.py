"""Results as rows keep them: the value, or the text of a value that JSON can't hold, which no step can use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..core.values import JSON, unavailable
from ..models import TaskExecution, TaskExecutionResult
from .database import Rows, rows

if TYPE_CHECKING:
    from ..core.outcome import Success  # code that only shows results does not need it


def of_success(outcome: Success, execution: TaskExecution) -> JSON:
    """A result for the steps that follow; they fail with a sentence if it was not kept as a value."""
    return _usable(outcome.value, outcome.text_of, execution.task_path, execution.task_name)


def of_execution(execution_id: int) -> JSON:
    """The execution's result, for a step; None before it has succeeded."""
    return next(_values(rows(TaskExecutionResult).filter(task_execution_try__task_execution=execution_id)), None)


def of_group(group_id: int) -> list[JSON]:
    """The members' results, in their order."""
    results = rows(TaskExecutionResult).filter(task_execution_try__task_execution__task_group=group_id)
    in_order = ("task_execution_try__task_execution__group_index", "task_execution_try__task_execution_id")
    return list(_values(results.order_by(*in_order)))


def value_of(result: TaskExecutionResult) -> JSON:
    """The stored JSON. `task_execution_try` should be loaded."""
    return _undoubled(result.result, result.task_execution_try.claim_token)


def _values(results: Rows) -> Iterator[JSON]:
    named = [f"task_execution_try__{column}" for column in ("claim_token", "task_execution__task_path")]
    columns = ("result", "text_of", *named, "task_execution_try__task_execution__task_name")
    for result, text_of, token, module, function in results.filter(task_execution_try__is_success=True).values_list(
        *columns
    ):
        yield _usable(_undoubled(result, token), text_of, module, function)


def _undoubled(value: JSON, claim_token: object) -> JSON:
    """django-i3tasks, whose tries have no token, stores a result's JSON as a JSON string."""
    if claim_token is not None or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _usable(value: JSON, text_of: str | None, module_name: str, func_name: str) -> JSON:
    if text_of is None:
        return value
    return unavailable(
        f"{module_name}.{func_name} returned a {text_of}, which JSON can't hold or which is larger than "
        "maximum_payload_bytes: only its text was kept. Return plain data instead, such as an id, a list or a dict."
    )

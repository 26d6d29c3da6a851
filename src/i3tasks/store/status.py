"""The answer of the status endpoint about one execution, read with Django's async ORM. See docs/health.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from ..core.values import shown, shown_keywords
from ..models import ExecutionOutcome, TaskExecution, TaskExecutionTry, TryState
from .concealing import column_of
from .database import rows
from .results import value_of

MOST_TRIES = 1000


async def status(**key: int | UUID) -> dict[str, Any] | None:
    """The status endpoint's answer about the execution with this `id` or `uuid`; None when there is none."""
    execution = await rows(TaskExecution).filter(**key).afirst()
    if execution is None:
        return None
    latest = rows(TaskExecutionTry).filter(task_execution=execution.pk).order_by("-try_number")
    tries = [task_try async for task_try in latest.select_related("result")[:MOST_TRIES]]
    return {
        "status": state_of(execution, tries),
        "task": {
            "id": execution.pk,
            "uuid": str(execution.uuid),
            "task_name": execution.task_name,
            "task_path": execution.task_path,
            "task_args": shown(column_of(execution, "task_args")),
            "task_kwargs": _shown_keywords(column_of(execution, "task_kwargs")),
            "task_group_id": execution.task_group_id,
            "created_at": execution.created_at.isoformat(),
            "updated_at": execution.updated_at.isoformat(),
        },
        "tries": [_with_texts(try_facts(task_try)) for task_try in reversed(tries)],
    }


def try_facts(task_try: TaskExecutionTry) -> dict[str, Any]:
    """A try as the endpoints show it. Its relation `result` should be loaded.

    `result_is_text_of` is there only if JSON can't hold what the body returned: the type of which `result` is the text.
    """
    text_of = getattr(getattr(task_try, "result", None), "text_of", None)
    return {
        "task_execution_try_id": task_try.pk,
        "try_number": task_try.try_number,
        "asked_at": task_try.asked_at,
        "started_at": task_try.started_at,
        "finished_at": task_try.finished_at,
        "is_completed": task_try.is_completed,
        "is_success": task_try.is_success,
        "result": shown_result(task_try),
        **({"result_is_text_of": text_of} if text_of else {}),
    }


def _shown_keywords(kwargs: Any) -> Any:
    """Keyword arguments; also a row that holds something else in their place can be shown."""
    return shown_keywords(kwargs) if isinstance(kwargs, dict) else shown(kwargs)


def shown_result(task_try: TaskExecutionTry) -> Any:
    """The try's return value, or its error's text; None without a result."""
    result = getattr(task_try, "result", None)
    return None if result is None else shown(value_of(result))


def state_of(execution: TaskExecution, latest_first: Sequence[TaskExecutionTry]) -> str:
    """The execution's state: success if any try was one; cancelled; or else the state of the latest try."""
    if not latest_first:
        return "unknown"
    any_success = any(task_try.is_success for task_try in latest_first)
    if execution.outcome == ExecutionOutcome.CANCELLED and not any_success:
        return ExecutionOutcome.CANCELLED.value
    return TryState.SUCCESS.value if any_success else TryState.of(latest_first[0]).value


def _with_texts(facts: dict[str, Any]) -> dict[str, Any]:
    """The instants as ISO 8601 with an offset of `+00:00`, as documented."""
    return {name: fact.isoformat() if isinstance(fact, datetime) else fact for name, fact in facts.items()}

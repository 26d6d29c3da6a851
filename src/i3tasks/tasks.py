"""The app's own tasks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from .calls.decorators import TaskDecorator, task


@TaskDecorator
def autoclean_task(days: float | None = None, batch_size: int | None = None) -> dict[str, int]:
    """Delete old finished executions, as `i3tasks clean` does. Put it into `schedules` to have it run by itself."""
    from .calls.cleaning import clean_old_task_executions  # by the worker that runs it

    older_than = None if days is None else timedelta(days=days)
    return {"deleted": clean_old_task_executions(older_than, batch_size)}


@TaskDecorator
def test_task() -> str:
    """Does nothing but succeed: to see that a deployment's tasks run."""
    return "ok"


@task
async def collect(results: Any) -> Any:
    """Returns its argument: the callback of a group that steps follow but that has no callback of its own."""
    return results

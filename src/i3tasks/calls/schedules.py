"""Schedules made by code: rows that running beats pick up within seconds.

    schedule_task(send_report, "0 7 * * MON-FRI", name="morning-report", time_zone="Europe/Berlin")
    delete_schedule("morning-report")

The admin shows them and can change them. Schedules that belong to a release are better kept in I3TASKS
(`types.Schedule`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

from ..conf import get_config
from ..core.clock import current_clock
from ..core.values import encode_arguments
from ..engine.launch import refuse_in_loop
from ..exceptions import ScheduleError
from ..models import TaskSchedule
from ..store.database import rows, time_of
from ..store.schedules import delete, save_schedule
from .base import Task
from .options import AS_THE_TASK_SAYS

P = ParamSpec("P")
T = TypeVar("T")

CatchUp = Literal["latest", "all", "none"]


def schedule_task(
    task: Task[..., Any],
    cron: str,
    *,
    name: str | None = None,
    description: str = "",
    time_zone: str | None = None,
    enabled: bool = True,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    queue_name: str | None = None,
    catch_up: CatchUp = "latest",
) -> TaskSchedule:
    """Run `task` whenever `cron` is due; part of the caller's transaction.

    name         a schedule of the same name is replaced, and counts from now on; by default `module.function`
    time_zone    an IANA name; None: the project's TIME_ZONE
    queue_name   None: the task's own queue
    catch_up     which missed slots run after a time without a beat: the "latest", "all" of them, or "none"

    Raises ScheduleError naming the wrong field, and ArgumentError for arguments that JSON can't hold.
    """
    refuse_in_loop("schedule_task", "aschedule_task")
    if not isinstance(task, Task):
        raise ScheduleError(f"schedule_task takes a task, with its arguments in args and kwargs, not {task!r:.80}.")
    if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
        raise ScheduleError(f"args must be a list of positional arguments, not {args!r:.80}.")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise ScheduleError(f"kwargs must be a dict of keyword arguments, not {kwargs!r:.80}.")
    if task._call_options._replace(queue_name=None) != AS_THE_TASK_SAYS:
        raise ScheduleError("Of using(...), a schedule keeps the queue_name only. Give the task itself other options.")
    limit = get_config().settings.maximum_payload_bytes
    encoded_args, encoded_kwargs = encode_arguments(args, kwargs or {}, limit=limit)
    fields = {
        "task_path": task.spec.module_name,
        "task_name": task.spec.func_name,
        "cron": cron,
        "time_zone": time_zone or "",
        "args": encoded_args,
        "kwargs": encoded_kwargs,
        "queue_name": task._call_options.queue_name if queue_name is None else queue_name,
        "enabled": enabled,
        "catch_up": catch_up,
        "description": description,
    }
    return save_schedule(task.spec.path if name is None else name, fields, now=time_of(current_clock()))


def delete_schedule(name: str) -> bool:
    """Delete a schedule that `schedule_task` or the admin made; calls it has enqueued stay. False: there was none."""
    refuse_in_loop("delete_schedule", "adelete_schedule")
    return delete(rows(TaskSchedule).filter(name=name)) > 0


def _twin(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The same function for coroutines."""

    @functools.wraps(function)
    async def twin(*args: P.args, **kwargs: P.kwargs) -> T:
        return await sync_to_async(function)(*args, **kwargs)

    twin.__name__ = twin.__qualname__ = f"a{function.__name__}"
    twin.__doc__ = f"`{function.__name__}` for coroutines."
    return twin


aschedule_task = _twin(schedule_task)
adelete_schedule = _twin(delete_schedule)

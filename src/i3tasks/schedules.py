"""Schedules made by code: rows that running beats pick up within seconds.

    schedule_task(send_report, "0 7 * * MON-FRI", name="morning-report", time_zone="Europe/Berlin")
    delete_schedule("morning-report")

They show in the admin, where they can be changed as well. Schedules that belong to a release are better kept in
I3TASKS (`types.Schedule`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

from .definition import Task
from .definition.options import AS_THE_TASK_SAYS
from .exceptions import ScheduleError
from .models import TaskSchedule
from .store.database import rows
from .store.schedules import save_schedule
from .values import encode_arguments

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

    name         a schedule of that name is replaced, and so counts from now on; by default `module.function`
    time_zone    an IANA name; None: the project's TIME_ZONE
    queue_name   None: the task's own queue
    catch_up     what is made up for after a time without a beat: the "latest" slot, "all" of them, or "none"

    Raises ScheduleError naming the field that is wrong, and ArgumentError for arguments that JSON can't hold.
    """
    if replace(task.call_options, queue_name=None) != AS_THE_TASK_SAYS:
        raise ScheduleError("Of using(...), a schedule keeps the queue_name only. Give the task itself other options.")
    encoded_args, encoded_kwargs = encode_arguments(args, kwargs or {})
    fields = {
        "task_path": task.spec.module_name,
        "task_name": task.spec.func_name,
        "cron": cron,
        "time_zone": time_zone or "",
        "args": encoded_args,
        "kwargs": encoded_kwargs,
        "queue_name": queue_name or task.call_options.queue_name,
        "enabled": enabled,
        "catch_up": catch_up,
        "description": description,
    }
    return save_schedule(task.spec.path if name is None else name, fields)


def delete_schedule(name: str) -> bool:
    """End a schedule that `schedule_task` or the admin made; what it enqueued stays. False: there was none."""
    count, _ = rows(TaskSchedule).filter(name=name).delete()
    return count > 0


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

"""The schedules there are, in I3TASKS and in rows, and what each of them would enqueue."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings as django_settings

from ..conf import get_config
from ..crontab import Crontab, zone_named
from ..exceptions import ScheduleError, UnknownQueueError, UnknownTaskError
from ..models import TaskSchedule
from ..registry import TaskSpec, load
from ..schedule_fields import problems
from ..types import Schedule
from ..values import encode_arguments
from .database import rows
from .enqueue import NewExecution


@dataclass(frozen=True, slots=True)
class KnownSchedule:
    """One schedule, wherever it is kept. Its fields are as they were found: `crontab` and `call` check them."""

    key: str
    row_id: int | None
    """Of its TaskSchedule; None: it is in I3TASKS."""
    module_name: str
    func_name: str
    cron: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    """Arguments are JSON data."""
    time_zone: str | None
    queue_name: str | None
    enabled: bool
    catch_up: str
    problem: str = ""

    def crontab(self) -> Crontab:
        """When it is due. Raises ScheduleError naming the fields that are wrong."""
        self._require_valid_fields()
        return Crontab(self.cron, zone_named(self.time_zone or django_settings.TIME_ZONE))

    def call(self) -> tuple[NewExecution, TaskSpec]:
        """What it enqueues. Raises ScheduleError where no worker could run that."""
        self._require_valid_fields()
        try:
            spec = load(self.module_name, self.func_name)
            queue_name = self._queue_name(spec)
        except (UnknownTaskError, UnknownQueueError) as error:
            raise ScheduleError(str(error)) from error
        require_arguments_that_fit(spec, self.args, self.kwargs)
        call = NewExecution(
            module_name=spec.module_name,
            func_name=spec.func_name,
            args=list(self.args),
            kwargs=dict(self.kwargs),
            queue_name=queue_name,
            priority=spec.options.priority,
            chain=spec.options.on_success,
        )
        return call, spec

    def _require_valid_fields(self) -> None:
        if self.problem:
            raise ScheduleError(self.problem)
        wrong = problems({name: getattr(self, name) for name in self.__dataclass_fields__})
        if wrong:
            raise ScheduleError(" ".join(f"{name}: {problem}" for name, problem in wrong.items()))

    def _queue_name(self, spec: TaskSpec) -> str | None:
        name = self.queue_name or spec.options.queue_name
        return get_config().queue(name).name if name or not spec.options.topic_name else None


def known_schedules() -> list[KnownSchedule]:
    """All of them, the disabled ones too."""
    in_settings = [of_settings(schedule) for schedule in get_config().settings.schedules]
    names = {schedule.key for schedule in in_settings}
    in_rows = map(of_row, rows(TaskSchedule).order_by("pk"))
    return in_settings + [_shadowed(schedule) if schedule.key in names else schedule for schedule in in_rows]


def of_settings(schedule: Schedule) -> KnownSchedule:
    """A schedule of I3TASKS, whose fields were checked when it was made."""
    args, kwargs = encode_arguments(schedule.args, schedule.kwargs)
    return KnownSchedule(
        key=schedule.key,
        row_id=None,
        module_name=schedule.module_name,
        func_name=schedule.func_name,
        cron=schedule.cron,
        args=args,
        kwargs=kwargs,
        time_zone=schedule.time_zone,
        queue_name=schedule.queue_name,
        enabled=schedule.enabled,
        catch_up=schedule.catch_up,
    )


def of_row(row: TaskSchedule) -> KnownSchedule:
    """A schedule of the database, whose fields anybody may have written."""
    return KnownSchedule(
        key=row.name,
        row_id=row.pk,
        module_name=row.task_path,
        func_name=row.task_name,
        cron=row.cron,
        args=row.args,
        kwargs=row.kwargs,
        time_zone=row.time_zone or None,
        queue_name=row.queue_name or None,
        enabled=row.enabled,
        catch_up=row.catch_up,
    )


def _shadowed(schedule: KnownSchedule) -> KnownSchedule:
    """It must not share the state of its namesake."""
    problem = f"I3TASKS has a schedule {schedule.key!r}, which counts. Give the one in the database another name."
    return replace(schedule, key=f"{schedule.key} (row {schedule.row_id})", problem=problem)


def save_schedule(name: str, fields: Mapping[str, Any]) -> TaskSchedule:
    """Make or replace the row of that name. Raises ScheduleError, and writes nothing, where it could not run."""
    require_free_name(name)
    of_row(TaskSchedule(name=name, **fields)).call()
    row, _ = rows(TaskSchedule).update_or_create(name=name, defaults=dict(fields))
    return row


def require_free_name(name: str) -> None:
    """Raises ScheduleError when a row can't have that name."""
    if problem := problems({"name": name}).get("name"):
        raise ScheduleError(f"name: {problem}")
    if any(schedule.name == name for schedule in get_config().settings.schedules):
        raise ScheduleError(f"name: I3TASKS has a schedule {name!r} already. Choose another name.")


def require_arguments_that_fit(spec: TaskSpec, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raises ScheduleError when the task's function does not take these arguments."""
    given = {**kwargs, "task_metadata": None} if spec.options.bind else kwargs
    try:
        inspect.signature(spec.function).bind(*args, **given)
    except TypeError as error:
        raise ScheduleError(f"args and kwargs don't fit the task {spec.path}: {error}.") from error

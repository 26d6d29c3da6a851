"""The schedules of I3TASKS and of the database, and the call that each of them enqueues."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from django.conf import settings as django_settings
from django.db.models import QuerySet

from ..conf import get_config
from ..core import binding
from ..core.crontab import Crontab, zone_named
from ..core.schedule_fields import LONGEST_NAME, problems
from ..core.values import encode_arguments
from ..exceptions import ScheduleError, UnknownQueueError, UnknownTaskError
from ..models import ScheduleState, TaskSchedule
from ..registry import TaskSpec, all_tasks, load
from ..types import Schedule
from .database import DATABASE_TIME, Instant, atomic, locked, rows

if TYPE_CHECKING:
    from .enqueue import NewExecution


@dataclass(frozen=True, slots=True)
class KnownSchedule:
    """One schedule of I3TASKS or of the database. Its fields are unchecked; `crontab` and `call` check them."""

    key: str
    row_id: int | None
    """The id of its TaskSchedule; None for a schedule of I3TASKS."""
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
        """The crontab of its due times. Raises ScheduleError naming the fields that are wrong."""
        self._require_valid_fields()
        return Crontab(self.cron, zone_named(self.time_zone or django_settings.TIME_ZONE))

    def call(self, find_task: Callable[[str, str], TaskSpec] = load) -> NewExecution:
        """The call that it enqueues. Raises ScheduleError when no worker could run it.

        `find_task` gives the task; `load` may import its module.
        """
        from .enqueue import NewExecution  # here: an admin imports this module to list schedules
        from .keys import argument_key

        self._require_valid_fields()
        try:
            spec = find_task(self.module_name, self.func_name)
            queue_name = spec.queue_name(self.queue_name)
        except (UnknownTaskError, UnknownQueueError) as error:
            raise ScheduleError(str(error)) from error
        require_arguments_that_fit(spec, self.args, self.kwargs)
        return NewExecution(
            module_name=spec.module_name,
            func_name=spec.func_name,
            args=list(self.args),
            kwargs=dict(self.kwargs),
            queue_name=queue_name,
            priority=spec.options.priority,
            options={"schedule": self.key},
            chain=spec.options.on_success,
            key=argument_key(spec, self.args, self.kwargs) if spec.options.unique else None,
        )

    def _require_valid_fields(self) -> None:
        if self.problem:
            raise ScheduleError(self.problem)
        wrong = problems({name: getattr(self, name) for name in self.__dataclass_fields__})
        if wrong:
            raise ScheduleError(" ".join(f"{name}: {problem}" for name, problem in wrong.items()))


def known_schedules() -> list[KnownSchedule]:
    """All schedules, the disabled ones too."""
    by_key = {schedule.key: schedule for schedule in map(of_task, all_tasks()) if schedule is not None}
    by_key |= {schedule.key: schedule for schedule in map(of_settings, get_config().settings.schedules)}
    in_code = _as_switched([*by_key.values()])
    names = {schedule.key for schedule in in_code}
    in_rows = map(of_row, rows(TaskSchedule).order_by("pk"))
    return in_code + [_shadowed(schedule) if schedule.key in names else schedule for schedule in in_rows]


def _as_switched(in_code: Sequence[KnownSchedule]) -> list[KnownSchedule]:
    """Schedules of I3TASKS and of tasks, of which some may be switched off."""
    if not in_code:
        return []
    off = rows(ScheduleState).filter(switched_off_at__isnull=False)
    keys = set(off.values_list("schedule_key", flat=True))
    return [replace(schedule, enabled=False) if schedule.key in keys else schedule for schedule in in_code]


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


def of_task(spec: TaskSpec) -> KnownSchedule | None:
    """The schedule that the task names itself, with `cron`. A schedule of I3TASKS with the task's name replaces it."""
    if spec.options.cron is None:
        return None
    schedule = Schedule(spec.module_name, spec.func_name, spec.options.cron, name=spec.path[-LONGEST_NAME:])
    return of_settings(schedule)


def of_row(row: TaskSchedule) -> KnownSchedule:
    """A schedule of the database. Its fields may be wrong: the row can be written without our checks."""
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
    """The schedule with a key of its own, so that it does not share the state of the one in I3TASKS."""
    problem = f"I3TASKS has a schedule {schedule.key!r}, which counts. Give the one in the database another name."
    return replace(schedule, key=f"{schedule.key} (row {schedule.row_id})", problem=problem)


def save_schedule(name: str, fields: Mapping[str, Any], *, now: Instant = DATABASE_TIME) -> TaskSchedule:
    """Create or replace the row of that name. Raises ScheduleError, and writes nothing, when it could not run."""
    require_free_name(name)
    of_row(TaskSchedule(name=name, **fields)).call()
    with atomic():
        before = locked(rows(TaskSchedule).filter(name=name), wait=True).first()
        row, _ = rows(TaskSchedule).update_or_create(name=name, defaults=dict(fields))
        if before is not None and counts_anew(before, row):
            count_from([name], now)
    return row


def counts_anew(before: TaskSchedule, after: TaskSchedule) -> bool:
    """Whether a change of a schedule gives it other slots than before: it is due at other times, or enabled again."""
    is_enabled = after.enabled and not before.enabled
    return is_enabled or (before.cron, before.time_zone) != (after.cron, after.time_zone)


def count_from(names: Iterable[str], now: Instant = DATABASE_TIME) -> None:
    """Have beats enqueue no slot of these schedules of the database that was due before `now`."""
    rows(ScheduleState).filter(schedule_key__in=list(names)).update(changed_at=now)


def switch(schedules: QuerySet[TaskSchedule], *, enabled: bool, now: Instant = DATABASE_TIME) -> int:
    """Enable or disable these schedules; give their number. One that is enabled again counts from now on."""
    with atomic():
        # The rows before their states, as in `save_schedule`: two transactions never wait for each other.
        changed = locked(schedules.exclude(enabled=enabled), wait=True)
        names = list(changed.values_list("name", flat=True))
        count = schedules.update(enabled=enabled)
        if enabled:
            count_from(names, now)
        return count


def switch_known(schedule: KnownSchedule, *, enabled: bool, now: Instant = DATABASE_TIME) -> bool:
    """Switch a schedule on or off, whether I3TASKS or the database has it. False: it was so already.

    One that is switched on counts from now on. Raises ScheduleError for one that I3TASKS itself disables.
    """
    if schedule.row_id is not None:
        found = rows(TaskSchedule).filter(pk=schedule.row_id).exclude(enabled=enabled)
        return bool(switch(found, enabled=enabled, now=now))
    if any(own.key == schedule.key and not own.enabled for own in get_config().settings.schedules):
        raise ScheduleError(f"I3TASKS has enabled=False for the schedule {schedule.key!r}: change it there.")
    with atomic():
        state, _ = rows(ScheduleState).get_or_create(schedule_key=schedule.key, defaults={"first_seen": now})
        one = rows(ScheduleState).filter(pk=state.pk, switched_off_at__isnull=not enabled)
        changes: dict[str, Any] = {"switched_off_at": None, "changed_at": now} if enabled else {"switched_off_at": now}
        return bool(one.update(**changes))


def delete(schedules: QuerySet[TaskSchedule]) -> int:
    """Delete these schedules of the database with their states; give their number."""
    with atomic():
        # Django deletes the states first, and would wait for a row whose change waits for its state.
        ids = list(locked(schedules, wait=True).values_list("pk", flat=True))
        rows(TaskSchedule).filter(pk__in=ids).delete()
        return len(ids)


def lock_schedule(row_id: int) -> None:
    """Lock a schedule of the database, then its state: another change of both comes after this one."""
    list(locked(rows(TaskSchedule).filter(pk=row_id), wait=True))
    list(locked(rows(ScheduleState).filter(schedule=row_id), wait=True))


def require_free_name(name: str) -> None:
    """Raise ScheduleError when a row can't have that name."""
    if problem := problems({"name": name}).get("name"):
        raise ScheduleError(f"name: {problem}")
    if any(schedule.name == name for schedule in get_config().settings.schedules):
        raise ScheduleError(f"name: I3TASKS has a schedule {name!r} already. Choose another name.")


def require_arguments_that_fit(spec: TaskSpec, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise ScheduleError when the task's function does not take these arguments."""
    if found := binding.problem(spec.function, args, kwargs, spec.given):
        raise ScheduleError(f"args and kwargs don't fit the task {spec.path}: {found}.")

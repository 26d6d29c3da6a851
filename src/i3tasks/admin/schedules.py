"""Schedules in the admin: the database's can be changed; the states and ticks of all can be read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import Model, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from ..conf import get_config
from ..core.clock import current_clock
from ..exceptions import ScheduleError, StoreUnavailable
from ..models import HEAVY, ScheduleState, ScheduleTick, TaskExecution, TaskSchedule
from ..registry import registered
from ..store.database import atomic, rows, time_of
from .base import ReadableList, ReadOnly
from .showing import link

if TYPE_CHECKING:
    from ..store.schedules import KnownSchedule  # late at run time: every process with an admin imports this module

SHOWN = 5
MOST_DECLARED = 200
BUSY = "Nothing was changed: another transaction is changing one of these schedules. Try again."


@admin.register(TaskSchedule)
class TaskScheduleAdmin(ReadableList):
    """The schedules of the database: add, change, enable, disable and run them. Beats see a change within seconds."""

    list_display = ("name", "task", "cron", "time_zone", "enabled", "next_run", "last_run", "last_error")
    list_filter = ("enabled", "task_name")
    search_fields = ("name", "task_path", "task_name", "description")
    ordering = ("name",)
    readonly_fields = ("next_runs", "last_runs", "last_error")
    actions = ("enable", "disable", "enqueue_now")
    change_list_template = "admin/i3tasks/taskschedule/change_list.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[TaskSchedule]:
        ticks = _latest_ticks("name")
        states = rows(ScheduleState).filter(schedule_key=OuterRef("name"))
        queryset: QuerySet[TaskSchedule] = (
            super()
            .get_queryset(request)
            .annotate(
                last_slot=Subquery(ticks.values("slot")[:1]),
                last_outcome=Subquery(ticks.values("execution__outcome")[:1]),
                state_error=Subquery(states.values("last_error")[:1]),
            )
        )
        return queryset

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """The list, with the schedules of I3TASKS below it."""
        return super().changelist_view(request, {**(extra_context or {}), "declared": _declared()})

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        from .forms import ScheduleForm  # late: every process with an admin imports this module

        return super().get_form(request, obj, change, form=ScheduleForm, **kwargs)

    def save_model(self, request: HttpRequest, obj: TaskSchedule, form: Any, change: bool) -> None:
        """Save the schedule. If its slots have changed, no slot from before this moment is enqueued."""
        from ..store.schedules import count_from, counts_anew

        with atomic():
            before = rows(TaskSchedule).filter(pk=obj.pk).first()
            super().save_model(request, obj, form, change)
            if before is not None and counts_anew(before, obj):
                count_from([obj.name], time_of(current_clock()))

    def delete_model(self, request: HttpRequest, obj: TaskSchedule) -> None:
        self.delete_queryset(request, rows(TaskSchedule).filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[TaskSchedule]) -> None:
        from ..store.schedules import delete

        delete(rows(TaskSchedule).filter(pk__in=list(queryset.values_list("pk", flat=True))))

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._bounded(request, super().changeform_view, *args, **kwargs)

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._bounded(request, super().delete_view, *args, **kwargs)

    def _bounded(
        self, request: HttpRequest, view: Callable[..., HttpResponse], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """The view's answer. A change that waits too long for a lock is not made, and its page says so."""
        from ..store.lock_timeout import LONGEST_LOCK, short_locks

        if request.method != "POST":
            return view(request, *args, **kwargs)
        try:
            with short_locks(LONGEST_LOCK, BUSY):
                return view(request, *args, **kwargs)
        except StoreUnavailable as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    @admin.display(ordering="task_name")
    def task(self, row: TaskSchedule) -> str:
        return f"{row.task_path}.{row.task_name}"

    @admin.display
    def next_run(self, row: TaskSchedule) -> str:
        return _coming(_known(row), 1)[0]

    @admin.display(ordering="last_slot")
    def last_run(self, row: Any) -> str:
        return _last(_known(row), row.last_slot, row.last_outcome)

    @admin.display(description="why it can't run", empty_value="-")
    def last_error(self, row: Any) -> str | None:
        return getattr(row, "state_error", None) or None

    @admin.display
    def next_runs(self, row: TaskSchedule) -> SafeString | str:
        return _lines(_coming(_known(row), SHOWN)) if row.pk else "-"  # nothing was typed yet that could be wrong

    @admin.display
    def last_runs(self, row: TaskSchedule) -> SafeString | str:
        ticks = rows(ScheduleTick).filter(schedule_key=row.name).select_related("execution").order_by("-slot")
        zone = _zone_of(_known(row))
        return _lines([f"{_slot(tick.slot, zone)}: {_became(tick)}" for tick in ticks[:SHOWN]])

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[TaskSchedule]) -> None:
        self._switch(request, queryset, enabled=True)

    @admin.action(description="Disable", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[TaskSchedule]) -> None:
        self._switch(request, queryset, enabled=False)

    def _switch(self, request: HttpRequest, queryset: QuerySet[TaskSchedule], *, enabled: bool) -> None:
        from ..store.lock_timeout import LONGEST_LOCK, short_locks
        from ..store.schedules import switch

        try:
            with short_locks(LONGEST_LOCK, BUSY):
                count = switch(queryset, enabled=enabled, now=time_of(current_clock()))
        except StoreUnavailable as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            self.message_user(request, f"{count} {'enabled' if enabled else 'disabled'}.")

    @admin.action(description="Run now", permissions=["change"])
    def enqueue_now(self, request: HttpRequest, queryset: QuerySet[TaskSchedule]) -> None:
        from ..engine.launch import launch
        from ..store.ticks import run_now

        for row in queryset:
            try:
                launch(run_now(_known(row), current_clock().now(), registered))
            except (ScheduleError, StoreUnavailable) as error:
                self.message_user(request, f"Did not enqueue {row.name}: {error}", messages.ERROR)
            else:
                self.message_user(request, f"Enqueued {row.name}.")


@admin.register(ScheduleState)
class ScheduleStateAdmin(ReadOnly):
    """How far the beats have come with each schedule, those of I3TASKS included."""

    list_display = ("schedule_key", "first_seen", "handled_until", "last_error")
    search_fields = ("schedule_key",)
    ordering = ("schedule_key",)
    sortable = ("schedule_key", "first_seen", "handled_until")

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Users who may: a state is deleted along with its schedule."""
        return super(ReadOnly, self).has_delete_permission(request, obj)


@admin.register(ScheduleTick)
class ScheduleTickAdmin(ReadOnly):
    """The execution that each slot led to. Retention deletes these records."""

    list_display = ("of_schedule", "slot", "enqueued")
    list_select_related = ("execution",)
    search_fields = ("schedule_key",)
    ordering = ("-slot",)
    sortable = ("of_schedule", "slot")
    readonly_fields = ("of_schedule", "enqueued")
    exclude = ("schedule_key", "execution")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ScheduleTick]:
        named = rows(TaskSchedule).filter(name=OuterRef("schedule_key"))
        queryset: QuerySet[ScheduleTick] = (
            super().get_queryset(request).defer(*(f"execution__{column}" for column in HEAVY))
        )
        return queryset.annotate(row_id=Subquery(named.values("pk")[:1]))

    @admin.display(description="schedule", ordering="schedule_key")
    def of_schedule(self, row: Any) -> str:
        return link(TaskSchedule, row.row_id, row.schedule_key) if row.row_id else str(row.schedule_key)

    @admin.display(description="execution")
    def enqueued(self, row: ScheduleTick) -> str:
        return link(TaskExecution, row.execution.pk, str(row.execution)) if row.execution else "pruned"


def _declared() -> list[dict[str, str]]:
    """The schedules of I3TASKS, as the list shows them."""
    from ..store.schedules import of_settings

    schedules = [of_settings(schedule) for schedule in get_config().settings.schedules][:MOST_DECLARED]
    ticks = _latest_ticks("schedule_key")
    states: Any = rows(ScheduleState).filter(schedule_key__in=[schedule.key for schedule in schedules])
    states = states.annotate(
        last_slot=Subquery(ticks.values("slot")[:1]), last_outcome=Subquery(ticks.values("execution__outcome")[:1])
    )
    known = {state.schedule_key: state for state in states} if schedules else {}
    return [_line(schedule, known.get(schedule.key)) for schedule in schedules]


def _line(schedule: KnownSchedule, state: Any) -> dict[str, str]:
    return {
        "name": schedule.key,
        "task": f"{schedule.module_name}.{schedule.func_name}",
        "cron": schedule.cron,
        "time_zone": schedule.time_zone or "",
        "next_run": _coming(schedule, 1)[0],
        "last_run": "-" if state is None else _last(schedule, state.last_slot, state.last_outcome),
        "last_error": "" if state is None else state.last_error,
    }


def _known(row: TaskSchedule) -> KnownSchedule:
    from ..store.schedules import of_row

    return of_row(row)


def _latest_ticks(column: str) -> QuerySet[ScheduleTick]:
    return rows(ScheduleTick).filter(schedule_key=OuterRef(column)).order_by("-slot")


def _coming(schedule: KnownSchedule, count: int) -> list[str]:
    """The next slots, in the schedule's time zone."""
    if not schedule.enabled:
        return ["disabled"]
    try:
        crontab = schedule.crontab()
    except ScheduleError as error:
        return [str(error)]
    return [_slot(slot, crontab.zone) for slot in islice(crontab.between(current_clock().now()), count)]


def _last(schedule: KnownSchedule, slot: datetime | None, outcome: str | None) -> str:
    return "-" if slot is None else f"{_slot(slot, _zone_of(schedule))} ({outcome or 'not finished'})"


def _zone_of(schedule: KnownSchedule) -> tzinfo:
    """The schedule's time zone; UTC for one that can't be read."""
    try:
        return schedule.crontab().zone
    except ScheduleError:
        return UTC


def _slot(slot: datetime, zone: tzinfo) -> str:
    try:
        return slot.astimezone(zone).strftime("%Y-%m-%d %H:%M %Z")
    except OverflowError:  # year 1 has no time in New York
        return f"{slot:%Y-%m-%d %H:%M} UTC"


def _became(tick: ScheduleTick) -> str:
    if tick.execution is None:
        return "pruned"
    return f"{tick.execution.outcome or 'not finished'} (execution {tick.execution.pk})"


def _lines(texts: list[str]) -> SafeString | str:
    return format_html_join(SafeString("<br>"), "{}", ((text,) for text in texts)) or "-"

"""Schedules in the admin: those of the database can be changed; how far each has come, and its ticks, can be read."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from .engine.launch import launch
from .exceptions import ScheduleError
from .models import ScheduleState, ScheduleTick, TaskSchedule
from .schedule_fields import problems
from .store.database import rows
from .store.schedules import of_row, require_free_name
from .store.ticks import run_now

SHOWN = 5
NAMES_IN_FORM = {"module_name": "task_path", "func_name": "task_name"}

if TYPE_CHECKING:
    ScheduleFormBase = forms.ModelForm[TaskSchedule]
    ScheduleAdminBase = admin.ModelAdmin[TaskSchedule]
else:
    ScheduleFormBase, ScheduleAdminBase = forms.ModelForm, admin.ModelAdmin


class ScheduleForm(ScheduleFormBase):
    """Refuses what beats would find broken."""

    class Meta:
        model = TaskSchedule
        fields = (
            "name",
            "task_path",
            "task_name",
            "cron",
            "time_zone",
            "args",
            "kwargs",
            "queue_name",
            "enabled",
            "catch_up",
            "description",
        )
        help_texts = {
            "task_path": "The module, for example shop.tasks.",
            "task_name": "The function in it.",
            "cron": "Minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly, @monthly, @yearly.",
            "time_zone": "For example Europe/Berlin. Empty: the project's.",
            "queue_name": "Empty: the task's own.",
            "catch_up": "What is made up for after a time in which no beat ran.",
        }

    def clean_args(self) -> Any:
        return [] if self.cleaned_data["args"] is None else self.cleaned_data["args"]

    def clean_kwargs(self) -> Any:
        return {} if self.cleaned_data["kwargs"] is None else self.cleaned_data["kwargs"]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        schedule = of_row(TaskSchedule(**cleaned))
        wrong = problems({name: getattr(schedule, name) for name in schedule.__dataclass_fields__})
        for name, problem in wrong.items():
            self.add_error(NAMES_IN_FORM.get(name, name), problem)
        if not wrong:
            try:
                require_free_name(cleaned["name"])
                schedule.call()
            except ScheduleError as error:
                self.add_error(None, str(error))
        return cleaned


@admin.register(TaskSchedule)
class TaskScheduleAdmin(ScheduleAdminBase):
    """Make, change, switch on and off, run now. Beats see a change within seconds."""

    form = ScheduleForm
    list_display = ("name", "task", "cron", "time_zone", "enabled", "next_run", "last_run", "last_error")
    list_filter = ("enabled", "task_name")
    search_fields = ("name", "task_path", "task_name", "description")
    ordering = ("name",)
    readonly_fields = ("next_runs", "last_runs", "last_error")
    actions = ("enable", "disable", "enqueue_now")

    def get_queryset(self, request: HttpRequest) -> QuerySet[TaskSchedule]:
        ticks = ScheduleTick.objects.filter(schedule_key=OuterRef("name")).order_by("-slot")
        states = ScheduleState.objects.filter(schedule_key=OuterRef("name"))
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

    @admin.display(ordering="task_name")
    def task(self, row: TaskSchedule) -> str:
        return f"{row.task_path}.{row.task_name}"

    @admin.display
    def next_run(self, row: TaskSchedule) -> str:
        return _coming(row, 1)[0]

    @admin.display(ordering="last_slot")
    def last_run(self, row: Any) -> str:
        if row.last_slot is None:
            return "-"
        return f"{_shown(row.last_slot)} ({row.last_outcome or 'not finished'})"

    @admin.display(description="why it can't run", empty_value="-")
    def last_error(self, row: Any) -> str | None:
        return getattr(row, "state_error", None) or None

    @admin.display
    def next_runs(self, row: TaskSchedule) -> SafeString | str:
        return _lines(_coming(row, SHOWN))

    @admin.display
    def last_runs(self, row: TaskSchedule) -> SafeString | str:
        ticks = rows(ScheduleTick).filter(schedule_key=row.name).select_related("execution").order_by("-slot")
        return _lines([f"{_shown(tick.slot)}: {_became(tick)}" for tick in ticks[:SHOWN]])

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[TaskSchedule]) -> None:
        self.message_user(request, f"{queryset.update(enabled=True)} enabled.")

    @admin.action(description="Disable", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[TaskSchedule]) -> None:
        self.message_user(request, f"{queryset.update(enabled=False)} disabled.")

    @admin.action(description="Run now", permissions=["change"])
    def enqueue_now(self, request: HttpRequest, queryset: QuerySet[TaskSchedule]) -> None:
        for row in queryset:
            try:
                launch(run_now(of_row(row), timezone.now()))
            except ScheduleError as error:
                self.message_user(request, f"Did not enqueue {row.name}: {error}", messages.ERROR)
            else:
                self.message_user(request, f"Enqueued {row.name}.")


if TYPE_CHECKING:
    ReadOnlyBase = admin.ModelAdmin[Any]
else:
    ReadOnlyBase = admin.ModelAdmin


class _ReadOnly(ReadOnlyBase):
    """Rows that only beats write."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(ScheduleState)
class ScheduleStateAdmin(_ReadOnly):
    """How far the beats have come, also with the schedules of I3TASKS."""

    list_display = ("schedule_key", "first_seen", "handled_until", "last_error")
    search_fields = ("schedule_key",)
    ordering = ("schedule_key",)


@admin.register(ScheduleTick)
class ScheduleTickAdmin(_ReadOnly):
    """Which slot led to which execution."""

    list_display = ("schedule_key", "slot", "execution")
    list_select_related = ("execution",)
    search_fields = ("schedule_key",)
    ordering = ("-slot",)


def _coming(row: TaskSchedule, count: int) -> list[str]:
    """The next slots, in the schedule's time zone."""
    if not row.enabled:
        return ["disabled"]
    try:
        crontab = of_row(row).crontab()
    except ScheduleError as error:
        return [str(error)]
    slots = islice(crontab.between(timezone.now()), count)
    return [slot.astimezone(crontab.zone).strftime("%Y-%m-%d %H:%M %Z") for slot in slots]


def _became(tick: ScheduleTick) -> str:
    if tick.execution is None:
        return "pruned"
    return f"{tick.execution.outcome or 'not finished'} (execution {tick.execution.pk})"


def _shown(instant: Any) -> str:
    return timezone.localtime(instant).strftime("%Y-%m-%d %H:%M")


def _lines(texts: list[str]) -> SafeString | str:
    return format_html_join(SafeString("<br>"), "{}", ((text,) for text in texts)) or "-"

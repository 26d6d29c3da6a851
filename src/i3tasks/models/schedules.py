"""Schedules, how far the beats have come with them, and their ticks."""

# pyright: reportIncompatibleVariableOverride=false
# (a model's Meta is not a subclass of its abstract parent's)

from __future__ import annotations

from django.db import models

from .base import Row, Stamped, StoredJSON
from .executions import TaskExecution


class CatchUp(models.TextChoices):
    """The missed slots that run after a time without a beat."""

    LATEST = "latest"  # the newest slot
    ALL = "all"
    NONE = "none"


class TaskSchedule(Stamped):
    """A schedule that is kept here rather than in I3TASKS, so that it can be changed while everything runs."""

    name = models.CharField(max_length=200, unique=True)
    task_name = models.CharField(max_length=256)
    task_path = models.CharField(max_length=256)  # the module
    cron = models.CharField(max_length=200)
    time_zone = models.CharField(max_length=64, blank=True, default="", db_default="")  # "": the project's TIME_ZONE
    args = StoredJSON(default=list, blank=True)
    kwargs = StoredJSON(default=dict, blank=True)
    queue_name = models.CharField(max_length=100, null=True, blank=True)  # null: the task's own
    enabled = models.BooleanField(default=True, db_default=True)
    catch_up = models.CharField(
        max_length=8, choices=CatchUp.choices, default=CatchUp.LATEST, db_default=CatchUp.LATEST.value
    )
    description = models.TextField(blank=True, default="", db_default="")

    def __str__(self) -> str:
        return self.name


class ScheduleState(Stamped):
    """How far the beats have come with a schedule, be it in I3TASKS or in a row.

    handled_until   slots up to here are done with; null: none yet, count from the minute of `first_seen`
    changed_at      since when the schedule has its present times: earlier slots are not run; null: from the beginning
    last_error      why the schedule can't be run at present; "" when it can
    switched_off_at since when a schedule of I3TASKS is off though the setting enables it; null: it is not
    """

    schedule_key = models.CharField(max_length=255, unique=True)  # its name, or a hash of its fields
    schedule = models.ForeignKey(TaskSchedule, models.CASCADE, null=True, blank=True, related_name="states")
    first_seen = models.DateTimeField()
    handled_until = models.DateTimeField(null=True, blank=True)
    changed_at = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(blank=True, default="", db_default="")
    last_error_at = models.DateTimeField(null=True, blank=True)
    switched_off_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"state of schedule {self.schedule_key}"


class ScheduleTick(Row):
    """One due slot of a schedule and the execution it led to. Its unique key makes beats agree."""

    schedule_key = models.CharField(max_length=255)
    slot = models.DateTimeField()
    execution = models.ForeignKey(TaskExecution, models.SET_NULL, null=True, blank=True, related_name="schedule_ticks")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["schedule_key", "slot"], name="i3tasks_tick_once")]
        indexes = [models.Index(fields=["slot"], name="i3tasks_tick_slot_idx")]

    def __str__(self) -> str:
        return f"{self.schedule_key} at {self.slot:%Y-%m-%d %H:%M %Z}"

"""The rows. What may happen to them is written in `store/`.

A try's state is in its columns:

    pending    started_at is null, not is_completed
    running    started_at is set, not is_completed
    success    is_completed and is_success
    failed     is_completed and not is_success
"""

# pyright: reportIncompatibleVariableOverride=false
# (a model's Meta is not a subclass of its abstract parent's)

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.db.models.functions import Coalesce

from .clock import SYSTEM_CLOCK


def new_uuid() -> UUID:
    """A fresh time-ordered id."""
    return SYSTEM_CLOCK.new_uuid7()


class _Stamped(models.Model):
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True


class TaskGroup(_Stamped):
    """Executions whose success, all together, starts a callback.

    Its methods need what stands above the models, and are defined in `canvas`.
    """

    create: ClassVar[Callable[..., TaskGroup]]
    acreate: ClassVar[Callable[..., Awaitable[TaskGroup]]]
    close: Callable[[], None]
    aclose: Callable[[], Awaitable[None]]
    cancel: Callable[[], None]
    acancel: Callable[[], Awaitable[None]]

    STATUS_PENDING = "pending"
    STATUS_SUCCESS = "success"
    STATUS_FAILED = "failed"

    callback_task_name = models.CharField(max_length=256)
    callback_task_path = models.CharField(max_length=256)
    callback_task_args = models.JSONField(default=list)
    callback_task_kwargs = models.JSONField(default=dict)
    callback_chain = models.JSONField(null=True, blank=True)
    total_count = models.IntegerField()
    completed_count = models.IntegerField(default=0)
    failed_count = models.IntegerField(default=0)
    status = models.CharField(max_length=16, default=STATUS_PENDING)
    callback_options = models.JSONField(null=True, blank=True)  # the rest of the callback's step
    on_failure = models.JSONField(null=True, blank=True)  # a step; called once with the failed execution's id
    wait_for_all = models.BooleanField(default=False, db_default=False)  # False: the first failure fails the group
    deadline = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    previous = models.ForeignKey(
        "TaskExecution", models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )  # the step of the chain before the group
    previous_id: int | None
    part_of = models.ForeignKey(
        "self", models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )  # the group of which a member begins with this one
    part_of_id: int | None

    class Meta:
        indexes = [
            models.Index(fields=["status"], name="i3tasks_tas_status_bf5f17_idx"),
            models.Index(fields=["previous"], name="i3tasks_tg_previous_idx", condition=Q(previous__isnull=False)),
            models.Index(fields=["part_of"], name="i3tasks_tg_part_of_idx", condition=Q(part_of__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"group {self.pk} of {self.total_count} ({self.status})"


class TaskExecution(_Stamped):
    """One requested run of a task, with the arguments that it runs with."""

    class Outcome(models.TextChoices):
        """How an execution ended. Null on unfinished rows, and on rows older than this column."""

        SUCCESS = "success"
        FAILED = "failed"
        CANCELLED = "cancelled"

    uuid = models.UUIDField(unique=True, default=new_uuid, editable=False)
    task_name = models.CharField(max_length=256)
    task_path = models.CharField(max_length=256)  # the module
    task_args = models.JSONField(default=list)
    task_kwargs = models.JSONField(default=dict)
    chain = models.JSONField(null=True, blank=True)
    task_group = models.ForeignKey(TaskGroup, models.SET_NULL, null=True, blank=True, related_name="members")
    task_group_id: int | None
    group_index = models.IntegerField(null=True, blank=True)  # the member's place among the group's results
    previous = models.ForeignKey(
        "self", models.SET_NULL, null=True, blank=True, related_name="next_steps", db_index=False
    )  # the step of the chain before this one
    previous_id: int | None
    previous_group = models.ForeignKey(
        TaskGroup, models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )  # the group whose success this followed
    previous_group_id: int | None
    part_of = models.ForeignKey(
        TaskGroup, models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )  # the group of which a member begins with this step and ends with a later one
    part_of_id: int | None
    queue_name = models.CharField(max_length=100, null=True, blank=True)  # null: the default queue
    priority = models.SmallIntegerField(default=0, db_default=0)
    options = models.JSONField(null=True, blank=True)  # what this call set itself, such as max_retries
    trace_context = models.JSONField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=16, null=True, blank=True, choices=Outcome.choices)

    class Meta:
        indexes = [
            models.Index(fields=["created_at"], name="i3tasks_te_created_idx"),
            models.Index(fields=["part_of"], name="i3tasks_te_part_of_idx", condition=Q(part_of__isnull=False)),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["previous"], name="i3tasks_te_previous_uniq", condition=Q(previous__isnull=False)
            ),
            models.UniqueConstraint(
                fields=["previous_group"],
                name="i3tasks_te_after_group_uniq",
                condition=Q(previous_group__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task_path}.{self.task_name} #{self.pk}"


class TaskExecutionTry(_Stamped):
    """One attempt at an execution; also the outbox entry that gets it published.

    run_after      not before; null: at once
    dispatch_at    when to publish it (again) unless it has been claimed; null: running or terminal
    lease_until    null unless running
    finished_at    null unless terminal
    """

    task_execution = models.ForeignKey(TaskExecution, models.CASCADE, related_name="tries")
    task_execution_id: int
    try_number = models.IntegerField(default=1)
    asked_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    is_completed = models.BooleanField(default=False)
    is_success = models.BooleanField(default=False)
    run_after = models.DateTimeField(null=True, blank=True)
    dispatch_at = models.DateTimeField(null=True, blank=True)
    publish_count = models.IntegerField(default=0, db_default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    claim_token = models.UUIDField(null=True, blank=True)
    worker_id = models.CharField(max_length=255, null=True, blank=True)
    error_class = models.CharField(max_length=255, null=True, blank=True)
    error_traceback = models.TextField(null=True, blank=True)

    class Meta:
        unique_together = [("task_execution", "try_number")]
        indexes = [
            models.Index(
                fields=["dispatch_at"], name="i3tasks_try_dispatch_idx", condition=Q(dispatch_at__isnull=False)
            ),
            models.Index(fields=["lease_until"], name="i3tasks_try_lease_idx", condition=Q(lease_until__isnull=False)),
            models.Index(fields=["asked_at"], name="i3tasks_try_unfinished_idx", condition=Q(is_completed=False)),
            models.Index(fields=["asked_at"], name="i3tasks_try_asked_idx"),
            models.Index(
                Coalesce("run_after", "asked_at"),
                name="i3tasks_try_waiting_idx",
                condition=Q(is_completed=False, started_at__isnull=True),
            ),
            models.Index(
                fields=["started_at"],
                name="i3tasks_try_running_idx",
                condition=Q(is_completed=False, started_at__isnull=False, finished_at__isnull=True),
            ),
            models.Index(
                fields=["finished_at"],
                name="i3tasks_try_failed_idx",
                condition=Q(is_completed=True, is_success=False),
            ),
        ]

    def __str__(self) -> str:
        return f"try {self.try_number} of execution {self.task_execution_id}"


class TaskExecutionResult(_Stamped):
    """What a finished try returned, or the text of its error."""

    task_execution_try = models.OneToOneField(TaskExecutionTry, models.CASCADE, related_name="result")
    task_execution_try_id: int
    result = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"result of try {self.task_execution_try_id}"


class TaskKey(models.Model):
    """Keeps calls apart that must be one: a caller's idempotency key, or a task that is unique by its arguments."""

    key = models.CharField(max_length=255, unique=True)
    token = models.UUIDField()  # of whoever wrote the row last
    task_execution = models.ForeignKey(TaskExecution, models.CASCADE, null=True, blank=True, related_name="keys")
    task_execution_id: int | None
    expires_at = models.DateTimeField(null=True, blank=True)  # null: when the execution finishes
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.key


class CatchUp(models.TextChoices):
    """What is made up for after a time in which no beat ran."""

    LATEST = "latest"  # the newest slot
    ALL = "all"
    NONE = "none"


class TaskSchedule(_Stamped):
    """A schedule that is kept here rather than in I3TASKS, so that it can be changed while everything runs."""

    name = models.CharField(max_length=200, unique=True)
    task_name = models.CharField(max_length=256)
    task_path = models.CharField(max_length=256)  # the module
    cron = models.CharField(max_length=200)
    time_zone = models.CharField(max_length=64, blank=True, default="", db_default="")  # "": the project's TIME_ZONE
    args = models.JSONField(default=list, blank=True)
    kwargs = models.JSONField(default=dict, blank=True)
    queue_name = models.CharField(max_length=100, null=True, blank=True)  # null: the task's own
    enabled = models.BooleanField(default=True, db_default=True)
    catch_up = models.CharField(
        max_length=8, choices=CatchUp.choices, default=CatchUp.LATEST, db_default=CatchUp.LATEST.value
    )
    description = models.TextField(blank=True, default="", db_default="")

    def __str__(self) -> str:
        return self.name


class ScheduleState(_Stamped):
    """How far the beats have come with a schedule, be it in I3TASKS or in a row.

    handled_until   slots up to here are done with; null: none yet, count from the minute of `first_seen`
    last_error      why the schedule can't be run at present; "" when it can
    """

    schedule_key = models.CharField(max_length=255, unique=True)  # its name, or a hash of its fields
    schedule = models.ForeignKey(TaskSchedule, models.CASCADE, null=True, blank=True, related_name="states")
    first_seen = models.DateTimeField()
    handled_until = models.DateTimeField(null=True, blank=True)
    last_error = models.TextField(blank=True, default="", db_default="")
    last_error_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"state of schedule {self.schedule_key}"


class ScheduleTick(models.Model):
    """One due slot of a schedule and the execution it led to. Its uniqueness is what makes beats agree."""

    schedule_key = models.CharField(max_length=255)
    slot = models.DateTimeField()
    execution = models.ForeignKey(TaskExecution, models.SET_NULL, null=True, blank=True, related_name="schedule_ticks")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["schedule_key", "slot"], name="i3tasks_tick_once")]
        indexes = [models.Index(fields=["slot"], name="i3tasks_tick_slot_idx")]

    def __str__(self) -> str:
        return f"{self.schedule_key} at {self.slot:%Y-%m-%d %H:%M %Z}"

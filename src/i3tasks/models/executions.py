"""Requested runs of tasks, and the keys that keep calls apart."""

# pyright: reportIncompatibleVariableOverride=false
# (a model's Meta is not a subclass of its abstract parent's)

from __future__ import annotations

from django.db import models
from django.db.models import Q

from .base import Row, Stamped, StoredJSON, new_uuid
from .groups import TaskGroup

HEAVY = ("task_args", "task_kwargs", "chain", "options", "trace_context")
"""Columns of executions that can be megabytes long. No list reads them."""


class ExecutionOutcome(models.TextChoices):
    """How an execution ended. Null on unfinished rows, and on rows older than this column."""

    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskExecution(Stamped):
    """One requested run of a task, with the arguments that it runs with."""

    uuid = models.UUIDField(unique=True, default=new_uuid, editable=False)
    task_name = models.CharField(max_length=256)
    task_path = models.CharField(max_length=256)  # the module
    task_args = StoredJSON(default=list)
    task_kwargs = StoredJSON(default=dict)
    chain = StoredJSON(null=True, blank=True)
    task_group = models.ForeignKey(
        TaskGroup, models.SET_NULL, null=True, blank=True, related_name="members", db_index=False
    )
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
    options = StoredJSON(null=True, blank=True)  # what this call set itself, such as max_retries
    trace_context = StoredJSON(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=16, null=True, blank=True, choices=ExecutionOutcome.choices)

    class Meta:
        indexes = [
            models.Index(fields=["created_at"], name="i3tasks_te_created_idx"),
            models.Index(fields=["finished_at"], name="i3tasks_te_failed_idx", condition=Q(outcome="failed")),
            models.Index(fields=["finished_at"], name="i3tasks_te_cancelled_idx", condition=Q(outcome="cancelled")),
            models.Index(fields=["task_name", "id"], name="i3tasks_te_task_idx"),
            models.Index(fields=["task_group"], name="i3tasks_te_group_idx", condition=Q(task_group__isnull=False)),
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
        permissions = [
            ("view_board", "Can see the board"),
            ("act_on_board", "Can act on the board: retry, cancel, put off, delete, pause"),
            ("view_arguments", "Can see arguments and results on the board"),
        ]

    def __str__(self) -> str:
        return f"{self.task_path}.{self.task_name} #{self.pk}"


class TaskKey(Row):
    """Keeps calls apart that must be one: a caller's idempotency key, or a task that is unique by its arguments."""

    key = models.CharField(max_length=255, unique=True)
    token = models.UUIDField()  # of the call that wrote the row last
    task_execution = models.ForeignKey(TaskExecution, models.CASCADE, null=True, blank=True, related_name="keys")
    task_execution_id: int | None
    expires_at = models.DateTimeField(null=True, blank=True)  # null: when the execution finishes
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        abstract = False  # a Meta of its own: the inherited option would be a migration

    def __str__(self) -> str:
        return self.key

"""Attempts at executions, their states and their results."""

# pyright: reportIncompatibleVariableOverride=false
# (a model's Meta is not a subclass of its abstract parent's)

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Coalesce

from .base import Stamped, StoredJSON
from .executions import TaskExecution


class TryState(models.TextChoices):
    """The state of a try, as its columns say. Each try is in exactly one.

    A try is over once it is completed, and also once it has started and has a `finished_at`: django-i3tasks never
    completed a try that failed. `condition` selects the tries of a state, `of` names the state of a loaded one.
    """

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"

    def condition(self, prefix: str = "") -> Q:
        """The condition for queries; `prefix` is the path to the tries, such as "tries__"."""

        def having(**columns: Any) -> Q:
            return Q(**{prefix + column: value for column, value in columns.items()})

        # `is_completed` stands in each alternative, so that PostgreSQL finds each by a partial index.
        ended_unmarked = having(is_completed=False, started_at__isnull=False, finished_at__isnull=False)
        return {
            TryState.PENDING: having(is_completed=False, started_at__isnull=True),
            TryState.RUNNING: having(is_completed=False, started_at__isnull=False, finished_at__isnull=True),
            TryState.SUCCESS: having(is_success=True) & (having(is_completed=True) | ended_unmarked),
            TryState.FAILED: having(is_success=False) & (having(is_completed=True) | ended_unmarked),
        }[self]

    @classmethod
    def of(cls, task_try: TaskExecutionTry) -> TryState:
        """The state of a loaded row."""
        if not (task_try.is_completed or (task_try.started_at and task_try.finished_at)):
            return cls.RUNNING if task_try.started_at else cls.PENDING
        return cls.SUCCESS if task_try.is_success else cls.FAILED


class TaskExecutionTry(Stamped):
    """One attempt at an execution; also the outbox entry that gets it published.

    run_after      not before; null: at once
    dispatch_at    when to publish it (again) unless it has been claimed; null: running or terminal. From the year 9000
                   on, it was set aside because its queue is paused: see `store.pauses`
    lease_until    null unless running
    finished_at    null unless terminal
    """

    # No index of its own: that of (task_execution, try_number) serves its lookups, too.
    task_execution = models.ForeignKey(TaskExecution, models.CASCADE, related_name="tries", db_index=False)
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
    # The execution's, here too: one index finds whose turn it is. Null and 0 if an older worker wrote the row.
    queue_name = models.CharField(max_length=100, null=True, blank=True)
    priority = models.SmallIntegerField(default=0, db_default=0)

    class Meta:
        verbose_name_plural = "task execution tries"
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
                "queue_name",
                F("priority").desc(),
                Coalesce("run_after", "asked_at"),
                name="i3tasks_try_turn_idx",
                condition=Q(is_completed=False, started_at__isnull=True),
            ),
            models.Index(
                "queue_name",
                F("priority").desc(),
                Coalesce("run_after", "asked_at"),
                name="i3tasks_try_ranked_idx",
                condition=Q(is_completed=False, started_at__isnull=True) & ~Q(priority=0),
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
            models.Index(
                fields=["asked_at"],
                name="i3tasks_try_unmarked_idx",
                condition=Q(is_completed=False, finished_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"execution {self.task_execution_id}, try {self.try_number}"


class TaskExecutionResult(Stamped):
    """The return value of a finished try, or the text of its error."""

    task_execution_try = models.OneToOneField(TaskExecutionTry, models.CASCADE, related_name="result")
    task_execution_try_id: int
    result = StoredJSON(default=dict)
    text_of = models.CharField(max_length=255, null=True, blank=True)  # the type of which `result` is the text only

    def __str__(self) -> str:
        task_try = self._state.fields_cache.get("task_execution_try")  # not loaded for this
        return f"result #{self.pk}" if task_try is None else f"result of {task_try}"

"""Groups of executions."""

# pyright: reportIncompatibleVariableOverride=false
# (a model's Meta is not a subclass of its abstract parent's)

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from django.db import models
from django.db.models import Q

from .base import Row, Stamped, StoredJSON


class TaskGroup(Stamped):
    """Executions whose success, all together, starts a callback.

    Its methods use layers above the models, and are defined in `calls.task_group`.
    """

    create: ClassVar[Callable[..., TaskGroup]]
    acreate: ClassVar[Callable[..., Awaitable[TaskGroup]]]
    close: Callable[[], None]
    aclose: Callable[[], Awaitable[None]]
    cancel: Callable[[], None]
    acancel: Callable[[], Awaitable[None]]
    result: Callable[..., Any]
    aresult: Callable[..., Awaitable[Any]]

    STATUS_PENDING = "pending"
    STATUS_SUCCESS = "success"
    STATUS_FAILED = "failed"

    callback_task_name = models.CharField(max_length=256)
    callback_task_path = models.CharField(max_length=256)
    callback_task_args = StoredJSON(default=list)
    callback_task_kwargs = StoredJSON(default=dict)
    callback_chain = StoredJSON(null=True, blank=True)
    total_count = models.IntegerField()
    completed_count = models.IntegerField(default=0)
    failed_count = models.IntegerField(default=0)
    status = models.CharField(max_length=16, default=STATUS_PENDING)
    callback_options = StoredJSON(null=True, blank=True)  # the rest of the callback's step
    on_failure = StoredJSON(null=True, blank=True)  # a step; called once with the failed execution's id
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


class GroupSlice(Row):
    """Members of a large group that are not written yet: such a group is written slice by slice.

    The transaction that writes the members deletes the slice.
    """

    task_group = models.ForeignKey(TaskGroup, models.CASCADE, related_name="slices")
    task_group_id: int
    first_index = models.IntegerField()  # the place of its first member among the group's results
    members = StoredJSON()  # each a list of steps
    result = StoredJSON(null=True, blank=True)  # what RESULT stands for in the members' first steps
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        abstract = False  # a Meta of its own: the inherited option would be a migration

    def __str__(self) -> str:
        return f"members of group {self.task_group_id} from {self.first_index} on"

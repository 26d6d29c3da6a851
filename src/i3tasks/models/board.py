"""Requests of people on the board or by commands: acts on many executions, stacks, paused queues."""

# pyright: reportIncompatibleVariableOverride=false
# (a model's Meta is not a subclass of its abstract parent's)

from __future__ import annotations

from django.db import models
from django.db.models import Q

from .base import Row, Stamped, StoredJSON


class BoardAct(Stamped):
    """An act of a person on the board on all executions that match a filter: done in slices, as processes have time.

    place         where to go on: up to here, all that match were seen
    lease_until   until when a process is at it; null: none is
    """

    act = models.CharField(max_length=16)
    filter = StoredJSON(default=dict)  # the fields of the search, as text
    until = models.DateTimeField(null=True, blank=True)  # for what is put off
    by = models.CharField(max_length=255)  # the name of the user
    expected = models.IntegerField()  # how many were counted before
    done = models.IntegerField(default=0)
    skipped = StoredJSON(default=dict)  # how many, by the reason
    place = models.CharField(max_length=255, blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["id"], name="i3tasks_act_unfinished_idx", condition=Q(finished_at__isnull=True)),
        ]

    def __str__(self) -> str:
        return f"{self.act} by {self.by} #{self.pk}"


class StackRequest(Row):
    """A person asks where the body of a running try is just now. The worker that runs it answers at its next heartbeat.

    taken_at   when the stack was taken; null: not yet
    stack      files, lines and functions, never values; "": its process could not tell
    """

    try_id = models.BigIntegerField(primary_key=True)  # no foreign key: the try may be deleted before
    asked_at = models.DateTimeField()
    asked_by = models.CharField(max_length=255, blank=True, default="", db_default="")
    taken_at = models.DateTimeField(null=True, blank=True)
    stack = models.TextField(blank=True, default="", db_default="")

    class Meta:
        abstract = False  # a Meta of its own: the inherited option would be a migration

    def __str__(self) -> str:
        return f"stack of try {self.pk}"


class QueuePause(Row):
    """A queue that is paused now: none of its tries begins. The row is deleted when the queue is resumed."""

    queue_name = models.CharField(max_length=100, unique=True)  # as in I3TASKS: the default queue has its name, too
    paused_at = models.DateTimeField()
    paused_by = models.CharField(max_length=255, blank=True, default="", db_default="")

    class Meta:
        abstract = False  # a Meta of its own: the inherited option would be a migration

    def __str__(self) -> str:
        return self.queue_name

"""The processes that run tries."""

# pyright: reportIncompatibleVariableOverride=false
# (a model's Meta is not a subclass of its abstract parent's)

from __future__ import annotations

from django.db import models

from .base import Row, StoredJSON


class WorkerRole(models.TextChoices):
    """The kind of process that a worker's row stands for."""

    WORKER = "worker"
    WEB = "web"  # runs what is pushed to it, or POST tasks-beat
    BEAT = "beat"  # the command of this name
    DISPATCHER = "dispatcher"  # the command `dispatch`


class WorkerState(models.TextChoices):
    """The last state that a worker's process wrote. A process that is killed writes none: see `heartbeat_at`."""

    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


class Worker(Row):
    """A process that runs tries, dispatches or beats. It writes its row itself, with each heartbeat.

    heartbeat_at    when it last did
    dispatched_at   when its dispatcher last got through; null: it has none, or never did
    beat_at         the same of its beat
    trouble         why Pub/Sub is not available to it; "" while it is
    """

    id = models.CharField(primary_key=True, max_length=255)  # `worker_id` of the tries that it has run
    role = models.CharField(max_length=16, choices=WorkerRole.choices)
    state = models.CharField(max_length=16, choices=WorkerState.choices)
    host = models.CharField(max_length=255)
    pid = models.IntegerField()
    version = models.CharField(max_length=64)
    release = models.CharField(max_length=200, blank=True, default="", db_default="")  # of the project, as I3TASKS says
    queues = StoredJSON(default=list)  # the names of those whose tries it runs
    concurrency = models.IntegerField(default=0, db_default=0)  # how many tries it runs at a time
    running = models.IntegerField(default=0, db_default=0)  # how many it was running at its heartbeat
    started_at = models.DateTimeField()
    heartbeat_at = models.DateTimeField()
    dispatched_at = models.DateTimeField(null=True, blank=True)
    beat_at = models.DateTimeField(null=True, blank=True)
    trouble = models.TextField(blank=True, default="", db_default="")

    class Meta:
        abstract = False  # a Meta of its own: the inherited option would be a migration

    def __str__(self) -> str:
        return str(self.pk)


class Deploy(Row):
    """A `release` of I3TASKS that processes began to run. One that comes back after another has a row for each time.

    Two processes that begin at the same time may both write it: the second in a row says nothing new.
    """

    release = models.CharField(max_length=200)
    first_seen = models.DateTimeField()

    class Meta:
        abstract = False  # a Meta of its own: the inherited option would be a migration

    def __str__(self) -> str:
        return self.release

"""The rows. The functions that change them are in `store/`."""

# pyright: reportIncompatibleVariableOverride=false
# (a model's Meta is not a subclass of its abstract parent's)

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from django.db import models, router
from django.db.models import F, Q
from django.db.models.functions import Coalesce

from .core.clock import current_clock

AnyRow = TypeVar("AnyRow", bound=models.Model)
HEAVY = ("task_args", "task_kwargs", "chain", "options", "trace_context")
"""Columns of executions that can be megabytes long. No list reads them."""


def new_uuid() -> UUID:
    """A fresh time-ordered id."""
    return current_clock().new_uuid7()


class Unreadable(str):
    """Stands in for JSON that Python can't read. It is text, so whatever shows rows can show it."""


class StoredJSON(models.JSONField):
    """A column of JSON in which one row that is nested too deeply keeps no other from being read."""

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        try:
            return super().from_db_value(value, expression, connection)
        except (RecursionError, ValueError):  # ValueError: a number of more digits than Python takes
            return Unreadable("(JSON that can't be read: it is nested too deeply, or holds too long a number)")

    def deconstruct(self) -> Any:
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs  # migrations need not know


class OneDatabase(models.Manager[AnyRow]):
    """Reads rows from the database to which they are written, whatever replicas a router reads other models from.

    A replica may lag behind: an execution that was just enqueued is not there yet.
    """

    def get_queryset(self) -> models.QuerySet[AnyRow]:
        queryset = super().get_queryset()
        return queryset if self._db else queryset.using(router.db_for_write(self.model))


class _Row(models.Model):
    objects = OneDatabase()

    class Meta:
        abstract = True
        base_manager_name = "objects"  # by which foreign keys and refresh_from_db read


class _Stamped(_Row):
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


class GroupSlice(_Row):
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


class ExecutionOutcome(models.TextChoices):
    """How an execution ended. Null on unfinished rows, and on rows older than this column."""

    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskExecution(_Stamped):
    """One requested run of a task, with the arguments that it runs with."""

    uuid = models.UUIDField(unique=True, default=new_uuid, editable=False)
    task_name = models.CharField(max_length=256)
    task_path = models.CharField(max_length=256)  # the module
    task_args = StoredJSON(default=list)
    task_kwargs = StoredJSON(default=dict)
    chain = StoredJSON(null=True, blank=True)
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


class TaskExecutionTry(_Stamped):
    """One attempt at an execution; also the outbox entry that gets it published.

    run_after      not before; null: at once
    dispatch_at    when to publish it (again) unless it has been claimed; null: running or terminal. From the year 9000
                   on, it was set aside because its queue is paused: see `store.pauses`
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


class TaskExecutionResult(_Stamped):
    """What a finished try returned, or the text of its error."""

    task_execution_try = models.OneToOneField(TaskExecutionTry, models.CASCADE, related_name="result")
    task_execution_try_id: int
    result = StoredJSON(default=dict)
    text_of = models.CharField(max_length=255, null=True, blank=True)  # the type of which `result` is the text only

    def __str__(self) -> str:
        task_try = self._state.fields_cache.get("task_execution_try")  # not loaded for this
        return f"result #{self.pk}" if task_try is None else f"result of {task_try}"


class TaskKey(_Row):
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


class ScheduleState(_Stamped):
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


class ScheduleTick(_Row):
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


class WorkerRole(models.TextChoices):
    """What kind of process a worker's row stands for."""

    WORKER = "worker"
    WEB = "web"  # runs what is pushed to it, or POST tasks-beat
    BEAT = "beat"  # the command of this name
    DISPATCHER = "dispatcher"  # the command `dispatch`


class WorkerState(models.TextChoices):
    """What a worker's process last said of itself. One that was killed says nothing: see `heartbeat_at`."""

    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


class Worker(_Row):
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


class BoardAct(_Stamped):
    """What a person does on the board to all executions that match a filter: in slices, as processes have time.

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


class StackRequest(_Row):
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


class QueuePause(_Row):
    """A queue that is paused now: nothing of it begins. The row is deleted when the queue is resumed."""

    queue_name = models.CharField(max_length=100, unique=True)  # as in I3TASKS: the default queue has its name, too
    paused_at = models.DateTimeField()
    paused_by = models.CharField(max_length=255, blank=True, default="", db_default="")

    class Meta:
        abstract = False  # a Meta of its own: the inherited option would be a migration

    def __str__(self) -> str:
        return self.queue_name

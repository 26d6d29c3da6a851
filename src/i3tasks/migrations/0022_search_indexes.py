"""Indexes for lists: executions that failed or were cancelled, those of a task, and failed tries of django-i3tasks."""

from django.db import models
from django.db.models import Q

from i3tasks.migrations import _operations
from i3tasks.migrations._operations import AddIndexOnline

FAILED = models.Index(fields=["finished_at"], name="i3tasks_te_failed_idx", condition=Q(outcome="failed"))
CANCELLED = models.Index(fields=["finished_at"], name="i3tasks_te_cancelled_idx", condition=Q(outcome="cancelled"))
TASK = models.Index(fields=["task_name", "id"], name="i3tasks_te_task_idx")
UNMARKED = models.Index(
    fields=["asked_at"],
    name="i3tasks_try_unmarked_idx",
    condition=Q(is_completed=False, finished_at__isnull=False),
)


class Migration(_operations.Migration):
    atomic = False
    dependencies = [("i3tasks", "0021_queue_pause")]

    operations = [
        AddIndexOnline("taskexecution", FAILED),
        AddIndexOnline("taskexecution", CANCELLED),
        AddIndexOnline("taskexecution", TASK),
        AddIndexOnline("taskexecutiontry", UNMARKED),
    ]

"""Fewer indexes to write for each task: one that another one covers, and one that held all executions of no group."""

import django.db.models.deletion
from django.db import models
from django.db.models import Q

from i3tasks.migrations import _operations
from i3tasks.migrations._operations import AddIndexOnline, DropIndexOfForeignKeyOnline

GROUP = models.Index(fields=["task_group"], name="i3tasks_te_group_idx", condition=Q(task_group__isnull=False))


class Migration(_operations.Migration):
    atomic = False
    dependencies = [("i3tasks", "0027_early_statistics")]

    operations = [
        AddIndexOnline("taskexecution", GROUP),
        DropIndexOfForeignKeyOnline(
            "taskexecution",
            "task_group",
            models.ForeignKey(
                blank=True,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="members",
                to="i3tasks.taskgroup",
            ),
        ),
        DropIndexOfForeignKeyOnline(
            "taskexecutiontry",
            "task_execution",
            models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="tries",
                to="i3tasks.taskexecution",
            ),
        ),
    ]

"""The tables as django-i3tasks 0.0.27 to 0.1.3 left them. Three squashed steps, because its releases stop at 0005,
0006 or 0007, and a replaced migration is taken for applied only when all that it replaces is."""

import django.db.models.deletion
from django.db import migrations, models

from i3tasks.migrations import _operations


def stamps():
    return [
        ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
        ("created_at", models.DateTimeField(auto_now_add=True)),
        ("updated_at", models.DateTimeField(auto_now=True)),
    ]


class Migration(_operations.Migration):
    initial = True
    replaces = [
        ("i3tasks", "0001_initial"),
        ("i3tasks", "0002_rename_created_taskexecution_created_at_and_more"),
        ("i3tasks", "0003_alter_taskexecutiontry_finished_at_and_more"),
        ("i3tasks", "0004_alter_taskexecutionresult_task_execution_try"),
        ("i3tasks", "0005_taskexecution_chain_taskgroup_and_more"),
    ]
    dependencies = []

    operations = [
        migrations.CreateModel(
            name="TaskGroup",
            fields=[
                *stamps(),
                ("callback_task_name", models.CharField(max_length=256)),
                ("callback_task_path", models.CharField(max_length=256)),
                ("callback_task_args", models.JSONField(default=list)),
                ("callback_task_kwargs", models.JSONField(default=dict)),
                ("callback_chain", models.JSONField(blank=True, null=True)),
                ("total_count", models.IntegerField()),
                ("completed_count", models.IntegerField(default=0)),
                ("failed_count", models.IntegerField(default=0)),
                ("status", models.CharField(default="pending", max_length=16)),
            ],
            options={"indexes": [models.Index(fields=["status"], name="i3tasks_tas_status_bf5f17_idx")]},
        ),
        migrations.CreateModel(
            name="TaskExecution",
            fields=[
                *stamps(),
                ("task_name", models.CharField(max_length=256)),
                ("task_path", models.CharField(max_length=256)),
                ("task_args", models.JSONField(default=list)),
                ("task_kwargs", models.JSONField(default=dict)),
                ("chain", models.JSONField(blank=True, null=True)),
                (
                    "task_group",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="members",
                        to="i3tasks.taskgroup",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="TaskExecutionTry",
            fields=[
                *stamps(),
                ("try_number", models.IntegerField(default=1)),
                ("asked_at", models.DateTimeField(auto_now_add=True)),
                ("started_at", models.DateTimeField(blank=True, null=True)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                ("is_completed", models.BooleanField(default=False)),
                ("is_success", models.BooleanField(default=False)),
                (
                    "task_execution",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="tries",
                        to="i3tasks.taskexecution",
                    ),
                ),
            ],
            options={"unique_together": {("task_execution", "try_number")}},
        ),
        migrations.CreateModel(
            name="TaskExecutionResult",
            fields=[
                *stamps(),
                ("result", models.JSONField(default=dict)),
                (
                    "task_execution_try",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="result",
                        to="i3tasks.taskexecutiontry",
                    ),
                ),
            ],
        ),
    ]

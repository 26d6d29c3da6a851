"""Chains that know their order, groups that can fail in more than one way, and the table of keys."""

import django.db.models.deletion
from django.db import migrations, models

from i3tasks.migrations import _operations

GROUP = {
    "callback_options": models.JSONField(blank=True, null=True),
    "on_failure": models.JSONField(blank=True, null=True),
    "wait_for_all": models.BooleanField(db_default=False, default=False),
    "deadline": models.DateTimeField(blank=True, null=True),
    "finished_at": models.DateTimeField(blank=True, null=True),
}


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0005_partial_indexes")]

    operations = [
        *(migrations.AddField("taskgroup", name, field) for name, field in GROUP.items()),
        migrations.AddField("taskexecution", "group_index", models.IntegerField(blank=True, null=True)),
        migrations.AddField(
            "taskexecution",
            "previous",
            models.ForeignKey(
                blank=True,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="next_steps",
                to="i3tasks.taskexecution",
            ),
        ),
        migrations.CreateModel(
            name="TaskKey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.CharField(max_length=255, unique=True)),
                ("token", models.UUIDField()),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "task_execution",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="keys",
                        to="i3tasks.taskexecution",
                    ),
                ),
            ],
        ),
    ]

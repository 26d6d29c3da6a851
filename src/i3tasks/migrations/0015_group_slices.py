"""Members of large groups that are not written yet."""

import django.db.models.deletion
from django.db import migrations, models

from i3tasks.migrations import _operations


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0014_worker")]

    operations = [
        migrations.CreateModel(
            name="GroupSlice",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("first_index", models.IntegerField()),
                ("members", models.JSONField()),
                ("result", models.JSONField(blank=True, null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "task_group",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="slices", to="i3tasks.taskgroup"
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
    ]

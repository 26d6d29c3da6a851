"""The table of acts that people carry out on the board."""

from django.db import migrations, models
from django.db.models import Q

from i3tasks.migrations import _operations


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0017_board_permissions")]

    operations = [
        migrations.CreateModel(
            name="BoardAct",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("act", models.CharField(max_length=16)),
                ("filter", models.JSONField(default=dict)),
                ("until", models.DateTimeField(blank=True, null=True)),
                ("by", models.CharField(max_length=255)),
                ("expected", models.IntegerField()),
                ("done", models.IntegerField(default=0)),
                ("skipped", models.JSONField(default=dict)),
                ("place", models.CharField(blank=True, default="", max_length=255)),
                ("lease_until", models.DateTimeField(blank=True, null=True)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "indexes": [
                    models.Index(
                        fields=["id"], name="i3tasks_act_unfinished_idx", condition=Q(finished_at__isnull=True)
                    )
                ],
            },
        ),
    ]

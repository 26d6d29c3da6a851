"""The table of the stacks of running tries that were asked for."""

from django.db import migrations, models

from i3tasks.migrations import _operations


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0024_schedule_switch")]

    operations = [
        migrations.CreateModel(
            name="StackRequest",
            fields=[
                ("try_id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("asked_at", models.DateTimeField()),
                ("asked_by", models.CharField(blank=True, db_default="", default="", max_length=255)),
                ("taken_at", models.DateTimeField(blank=True, null=True)),
                ("stack", models.TextField(blank=True, db_default="", default="")),
            ],
            options={
                "abstract": False,
            },
        ),
    ]

"""The table of paused queues."""

from django.db import migrations, models

from i3tasks.migrations import _operations


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0020_turn_index")]

    operations = [
        migrations.CreateModel(
            name="QueuePause",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("queue_name", models.CharField(max_length=100, unique=True)),
                ("paused_at", models.DateTimeField()),
                ("paused_by", models.CharField(blank=True, db_default="", default="", max_length=255)),
            ],
            options={
                "abstract": False,
            },
        ),
    ]

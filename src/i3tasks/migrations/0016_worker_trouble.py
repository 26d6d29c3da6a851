"""The reason why Pub/Sub is not available to a worker's process."""

from django.db import migrations, models

from i3tasks.migrations import _operations


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0015_group_slices")]

    operations = [
        migrations.AddField("worker", "trouble", models.TextField(blank=True, db_default="", default="")),
    ]

"""Schedules of I3TASKS can be switched off while everything runs."""

from django.db import migrations, models

from i3tasks.migrations import _operations


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0023_plural_of_tries")]

    operations = [
        migrations.AddField("schedulestate", "switched_off_at", models.DateTimeField(blank=True, null=True)),
    ]

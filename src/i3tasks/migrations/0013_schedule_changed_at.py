"""The time at which the slots of a schedule were changed: beats run no earlier slot."""

from django.db import migrations, models

from i3tasks.migrations import _operations


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0012_result_text_of")]

    operations = [
        migrations.AddField("schedulestate", "changed_at", models.DateTimeField(blank=True, null=True)),
    ]

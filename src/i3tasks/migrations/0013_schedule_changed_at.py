"""When a schedule was given other times: beats run no slot from before."""

from django.db import migrations, models

from i3tasks.migrations import _operations


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0012_result_text_of")]

    operations = [
        migrations.AddField("schedulestate", "changed_at", models.DateTimeField(blank=True, null=True)),
    ]

"""Links of a workflow: the step or group that a row follows, and the group that it is a part of."""

import django.db.models.deletion
from django.db import migrations, models

from i3tasks.migrations import _operations


def link(to: str) -> models.ForeignKey:
    return models.ForeignKey(
        blank=True,
        db_index=False,
        null=True,
        on_delete=django.db.models.deletion.SET_NULL,
        related_name="+",
        to=f"i3tasks.{to}",
    )


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0009_schedules")]

    operations = [
        migrations.AddField("taskgroup", "previous", link("taskexecution")),
        migrations.AddField("taskgroup", "part_of", link("taskgroup")),
        migrations.AddField("taskexecution", "previous_group", link("taskgroup")),
        migrations.AddField("taskexecution", "part_of", link("taskgroup")),
    ]

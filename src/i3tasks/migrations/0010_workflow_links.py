"""What in its workflow a step or a group came after, or is a part of."""

import django.db.models.deletion
from django.db import migrations, models


def link(to: str) -> models.ForeignKey:
    return models.ForeignKey(
        blank=True,
        db_index=False,
        null=True,
        on_delete=django.db.models.deletion.SET_NULL,
        related_name="+",
        to=f"i3tasks.{to}",
    )


class Migration(migrations.Migration):
    dependencies = [("i3tasks", "0009_schedules")]

    operations = [
        migrations.AddField("taskgroup", "previous", link("taskexecution")),
        migrations.AddField("taskgroup", "part_of", link("taskgroup")),
        migrations.AddField("taskexecution", "previous_group", link("taskgroup")),
        migrations.AddField("taskexecution", "part_of", link("taskgroup")),
    ]

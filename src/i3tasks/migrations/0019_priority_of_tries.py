"""The queue and the priority of a try, beside its execution's, so that one index finds the try whose turn it is."""

from django.db import migrations, models

from i3tasks.migrations import _operations


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0018_board_act")]

    operations = [
        migrations.AddField("taskexecutiontry", "queue_name", models.CharField(blank=True, max_length=100, null=True)),
        migrations.AddField("taskexecutiontry", "priority", models.SmallIntegerField(db_default=0, default=0)),
    ]

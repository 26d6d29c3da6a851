"""The plural of a try."""

from django.db import migrations

from i3tasks.migrations import _operations


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0022_search_indexes")]

    operations = [
        migrations.AlterModelOptions(name="taskexecutiontry", options={"verbose_name_plural": "task execution tries"})
    ]

"""Marks a result that is the text of a value that JSON can't hold."""

from django.db import migrations, models

from i3tasks.migrations import _operations


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0011_workflow_link_indexes")]

    operations = [
        migrations.AddField(
            model_name="taskexecutionresult",
            name="text_of",
            field=models.CharField(blank=True, max_length=255, null=True),
        ),
    ]

"""The release that a process runs, and the table of releases with the time at which each was first seen."""

from django.db import migrations, models

from i3tasks.migrations import _operations


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0025_stack_request")]

    operations = [
        migrations.AddField(
            "worker", "release", models.CharField(blank=True, db_default="", default="", max_length=200)
        ),
        migrations.CreateModel(
            name="Deploy",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("release", models.CharField(max_length=200)),
                ("first_seen", models.DateTimeField()),
            ],
            options={
                "abstract": False,
            },
        ),
    ]

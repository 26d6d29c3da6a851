"""The permissions of the board. They change no table."""

from django.db import migrations

from i3tasks.migrations import _operations


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0016_worker_trouble")]

    operations = [
        migrations.AlterModelOptions(
            "taskexecution",
            {
                "permissions": [
                    ("view_board", "Can see the board"),
                    ("act_on_board", "Can act on the board: retry, cancel, put off, delete, pause"),
                    ("view_arguments", "Can see arguments and results on the board"),
                ]
            },
        ),
    ]

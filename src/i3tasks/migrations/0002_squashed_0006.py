"""The public uuid of an execution (django-i3tasks 0.1.4). Each existing row gets a random one."""

from uuid import uuid4

from django.db import migrations, models

import i3tasks.models
from i3tasks.migrations import _operations

BATCH = 2000


def give_each_row_a_uuid(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("UPDATE i3tasks_taskexecution SET uuid = gen_random_uuid() WHERE uuid IS NULL")
        return
    rows = apps.get_model("i3tasks", "TaskExecution").objects.using(schema_editor.connection.alias)
    while batch := list(rows.filter(uuid__isnull=True).order_by("pk")[:BATCH]):
        for row in batch:
            row.uuid = uuid4()
        rows.bulk_update(batch, ["uuid"], batch_size=200)


class Migration(_operations.Migration):
    replaces = [("i3tasks", "0006_taskexecution_uuid")]
    dependencies = [("i3tasks", "0001_squashed_0005")]

    operations = [
        migrations.AddField("taskexecution", "uuid", models.UUIDField(editable=False, null=True)),
        migrations.RunPython(give_each_row_a_uuid, migrations.RunPython.noop, elidable=False),
        migrations.AlterField(
            "taskexecution",
            "uuid",
            models.UUIDField(default=i3tasks.models.new_uuid, editable=False, unique=True),
        ),
    ]

"""Indexes of the rows that still matter; finished ones, the great majority, are in none of the first three."""

from django.db import migrations, models
from django.db.models import Q

from i3tasks.migrations._operations import AddIndexOnline

INDEXES = [
    models.Index(fields=["dispatch_at"], name="i3tasks_try_dispatch_idx", condition=Q(dispatch_at__isnull=False)),
    models.Index(fields=["lease_until"], name="i3tasks_try_lease_idx", condition=Q(lease_until__isnull=False)),
    models.Index(fields=["asked_at"], name="i3tasks_try_unfinished_idx", condition=Q(is_completed=False)),
    models.Index(
        fields=["finished_at"], name="i3tasks_try_failed_idx", condition=Q(is_completed=True, is_success=False)
    ),
]


def vacuum_early(apps, schema_editor):
    """A queue's table is mostly dead row versions; the default of a fifth of the table comes far too late."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE i3tasks_taskexecutiontry SET (autovacuum_vacuum_scale_factor = 0.01)")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("i3tasks", "0004_outbox_and_leases")]

    operations = [
        *(AddIndexOnline("taskexecutiontry", index) for index in INDEXES),
        migrations.RunPython(vacuum_early, migrations.RunPython.noop),
    ]

"""Columns for the outbox and leases. Each is nullable or has a database default, because workers of the previous
release insert rows while this one is rolled out."""

from django.db import migrations, models

from i3tasks.migrations import _operations

EXECUTION = {
    "queue_name": models.CharField(blank=True, max_length=100, null=True),
    "priority": models.SmallIntegerField(db_default=0, default=0),
    "options": models.JSONField(blank=True, null=True),
    "trace_context": models.JSONField(blank=True, null=True),
    "cancel_requested_at": models.DateTimeField(blank=True, null=True),
    "finished_at": models.DateTimeField(blank=True, null=True),
    "outcome": models.CharField(
        blank=True,
        choices=[("success", "Success"), ("failed", "Failed"), ("cancelled", "Cancelled")],
        max_length=16,
        null=True,
    ),
}
TRY = {
    "run_after": models.DateTimeField(blank=True, null=True),
    "dispatch_at": models.DateTimeField(blank=True, null=True),
    "publish_count": models.IntegerField(db_default=0, default=0),
    "lease_until": models.DateTimeField(blank=True, null=True),
    "claim_token": models.UUIDField(blank=True, null=True),
    "worker_id": models.CharField(blank=True, max_length=255, null=True),
    "error_class": models.CharField(blank=True, max_length=255, null=True),
    "error_traceback": models.TextField(blank=True, null=True),
}


def give_new_rows_a_uuid(apps, schema_editor):
    """The column of 0006 has no default; workers of a release before that one don't know it."""
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE i3tasks_taskexecution ALTER COLUMN uuid SET DEFAULT gen_random_uuid()")


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0003_squashed_0007")]

    operations = [
        *(migrations.AddField("taskexecution", name, field) for name, field in EXECUTION.items()),
        *(migrations.AddField("taskexecutiontry", name, field) for name, field in TRY.items()),
        migrations.RunPython(give_new_rows_a_uuid, migrations.RunPython.noop),
    ]

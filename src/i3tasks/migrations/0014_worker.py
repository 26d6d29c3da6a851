"""The table of workers: each process that runs tries, dispatches or beats keeps a row."""

from django.db import migrations, models

from i3tasks.migrations import _operations


class Migration(_operations.Migration):
    dependencies = [("i3tasks", "0013_schedule_changed_at")]

    operations = [
        migrations.CreateModel(
            name="Worker",
            fields=[
                ("id", models.CharField(max_length=255, primary_key=True, serialize=False)),
                (
                    "role",
                    models.CharField(
                        choices=[
                            ("worker", "Worker"),
                            ("web", "Web"),
                            ("beat", "Beat"),
                            ("dispatcher", "Dispatcher"),
                        ],
                        max_length=16,
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[("running", "Running"), ("draining", "Draining"), ("stopped", "Stopped")],
                        max_length=16,
                    ),
                ),
                ("host", models.CharField(max_length=255)),
                ("pid", models.IntegerField()),
                ("version", models.CharField(max_length=64)),
                ("queues", models.JSONField(default=list)),
                ("concurrency", models.IntegerField(db_default=0, default=0)),
                ("running", models.IntegerField(db_default=0, default=0)),
                ("started_at", models.DateTimeField()),
                ("heartbeat_at", models.DateTimeField()),
                ("dispatched_at", models.DateTimeField(blank=True, null=True)),
                ("beat_at", models.DateTimeField(blank=True, null=True)),
            ],
        ),
    ]

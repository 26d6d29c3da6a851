"""Schedules in the database, how far the beats have come with each schedule, and the slots that they enqueued."""

import django.db.models.deletion
from django.db import migrations, models

from i3tasks.migrations import _operations


class Migration(_operations.Migration):
    dependencies = [
        ("i3tasks", "0008_health_indexes"),
    ]

    operations = [
        migrations.CreateModel(
            name="TaskSchedule",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("name", models.CharField(max_length=200, unique=True)),
                ("task_name", models.CharField(max_length=256)),
                ("task_path", models.CharField(max_length=256)),
                ("cron", models.CharField(max_length=200)),
                ("time_zone", models.CharField(blank=True, db_default="", default="", max_length=64)),
                ("args", models.JSONField(blank=True, default=list)),
                ("kwargs", models.JSONField(blank=True, default=dict)),
                ("queue_name", models.CharField(blank=True, max_length=100, null=True)),
                ("enabled", models.BooleanField(db_default=True, default=True)),
                (
                    "catch_up",
                    models.CharField(
                        choices=[("latest", "Latest"), ("all", "All"), ("none", "None")],
                        db_default="latest",
                        default="latest",
                        max_length=8,
                    ),
                ),
                ("description", models.TextField(blank=True, db_default="", default="")),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="ScheduleState",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("schedule_key", models.CharField(max_length=255, unique=True)),
                ("first_seen", models.DateTimeField()),
                ("handled_until", models.DateTimeField(blank=True, null=True)),
                ("last_error", models.TextField(blank=True, db_default="", default="")),
                ("last_error_at", models.DateTimeField(blank=True, null=True)),
                (
                    "schedule",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="states",
                        to="i3tasks.taskschedule",
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="ScheduleTick",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("schedule_key", models.CharField(max_length=255)),
                ("slot", models.DateTimeField()),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                (
                    "execution",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="schedule_ticks",
                        to="i3tasks.taskexecution",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["slot"], name="i3tasks_tick_slot_idx")],
                "constraints": [models.UniqueConstraint(fields=("schedule_key", "slot"), name="i3tasks_tick_once")],
            },
        ),
    ]

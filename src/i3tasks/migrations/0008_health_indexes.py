"""Indexes for the health endpoint: tries of the last hour, the try that waits longest, and running tries."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Coalesce

from i3tasks.migrations import _operations
from i3tasks.migrations._operations import AddIndexOnline

INDEXES = [
    models.Index(fields=["asked_at"], name="i3tasks_try_asked_idx"),
    models.Index(
        Coalesce("run_after", "asked_at"),
        name="i3tasks_try_waiting_idx",
        condition=Q(is_completed=False, started_at__isnull=True),
    ),
    models.Index(
        fields=["started_at"],
        name="i3tasks_try_running_idx",
        condition=Q(is_completed=False, started_at__isnull=False, finished_at__isnull=True),
    ),
]


class Migration(_operations.Migration):
    atomic = False
    dependencies = [("i3tasks", "0007_chain_order")]

    operations = [AddIndexOnline("taskexecutiontry", index) for index in INDEXES]

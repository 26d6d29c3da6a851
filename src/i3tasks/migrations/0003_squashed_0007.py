"""The index that retention reads (django-i3tasks 0.1.7)."""

from django.db import models

from i3tasks.migrations import _operations
from i3tasks.migrations._operations import AddIndexOnline


class Migration(_operations.Migration):
    atomic = False
    replaces = [("i3tasks", "0007_taskexecution_created_at_index")]
    dependencies = [("i3tasks", "0002_squashed_0006")]

    operations = [
        AddIndexOnline("taskexecution", models.Index(fields=["created_at"], name="i3tasks_te_created_idx")),
    ]

"""At most one next step for each execution, so that a repeated settlement can't run a step of a chain twice."""

from django.db import models
from django.db.models import Q

from i3tasks.migrations import _operations
from i3tasks.migrations._operations import AddConstraintOnline


class Migration(_operations.Migration):
    atomic = False
    dependencies = [("i3tasks", "0006_workflows_and_keys")]

    operations = [
        AddConstraintOnline(
            "taskexecution",
            models.UniqueConstraint(
                fields=["previous"], name="i3tasks_te_previous_uniq", condition=Q(previous__isnull=False)
            ),
        ),
    ]

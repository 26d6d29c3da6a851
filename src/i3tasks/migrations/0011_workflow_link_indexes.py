"""At most one callback for each group, and indexes for the links of workflows."""

from django.db import models
from django.db.models import Q

from i3tasks.migrations import _operations
from i3tasks.migrations._operations import AddConstraintOnline, AddIndexOnline

PREVIOUS = models.Index(fields=["previous"], name="i3tasks_tg_previous_idx", condition=Q(previous__isnull=False))
GROUP_PART_OF = models.Index(fields=["part_of"], name="i3tasks_tg_part_of_idx", condition=Q(part_of__isnull=False))
STEP_PART_OF = models.Index(fields=["part_of"], name="i3tasks_te_part_of_idx", condition=Q(part_of__isnull=False))
ONE_CALLBACK = models.UniqueConstraint(
    fields=["previous_group"], name="i3tasks_te_after_group_uniq", condition=Q(previous_group__isnull=False)
)


class Migration(_operations.Migration):
    atomic = False
    dependencies = [("i3tasks", "0010_workflow_links")]

    operations = [
        AddIndexOnline("taskgroup", PREVIOUS),
        AddIndexOnline("taskgroup", GROUP_PART_OF),
        AddIndexOnline("taskexecution", STEP_PART_OF),
        AddConstraintOnline("taskexecution", ONE_CALLBACK),
    ]

"""A group is followed by one callback at most; and the links of workflows, found without reading whole tables."""

from django.db import migrations, models
from django.db.models import Q

from i3tasks.migrations._operations import AddConstraintOnline, AddIndexOnline

PREVIOUS = models.Index(fields=["previous"], name="i3tasks_tg_previous_idx", condition=Q(previous__isnull=False))
GROUP_PART_OF = models.Index(fields=["part_of"], name="i3tasks_tg_part_of_idx", condition=Q(part_of__isnull=False))
STEP_PART_OF = models.Index(fields=["part_of"], name="i3tasks_te_part_of_idx", condition=Q(part_of__isnull=False))
ONE_CALLBACK = models.UniqueConstraint(
    fields=["previous_group"], name="i3tasks_te_after_group_uniq", condition=Q(previous_group__isnull=False)
)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("i3tasks", "0010_workflow_links")]

    operations = [
        AddIndexOnline("taskgroup", PREVIOUS),
        AddIndexOnline("taskgroup", GROUP_PART_OF),
        AddIndexOnline("taskexecution", STEP_PART_OF),
        AddConstraintOnline("taskexecution", ONE_CALLBACK),
    ]

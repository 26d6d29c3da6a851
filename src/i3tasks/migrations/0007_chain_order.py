"""At most one next step for each execution: what makes a chain run each step once, whatever happens twice."""

from django.db import migrations, models
from django.db.models import Q

from i3tasks.migrations._operations import AddConstraintOnline


class Migration(migrations.Migration):
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

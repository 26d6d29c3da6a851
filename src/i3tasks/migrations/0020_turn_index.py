"""Indexes for whose turn it is: the waiting tries of a queue, the highest priority first; and whether any has one."""

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Coalesce

from i3tasks.migrations import _operations
from i3tasks.migrations._operations import AddIndexOnline

PLACE = ("queue_name", F("priority").desc(), Coalesce("run_after", "asked_at"))
TURN = models.Index(*PLACE, name="i3tasks_try_turn_idx", condition=Q(is_completed=False, started_at__isnull=True))
RANKED = models.Index(
    *PLACE,
    name="i3tasks_try_ranked_idx",
    condition=Q(is_completed=False, started_at__isnull=True) & ~Q(priority=0),
)


class Migration(_operations.Migration):
    atomic = False
    dependencies = [("i3tasks", "0019_priority_of_tries")]

    operations = [AddIndexOnline("taskexecutiontry", index) for index in (TURN, RANKED)]

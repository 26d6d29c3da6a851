"""`i3tasks_run_now`, also `i3tasks run-now`: make executions due that were put off."""

from __future__ import annotations

from ...store.bulk import Act
from ..acting import ActCommand


class Command(ActCommand):
    help = (
        "Make executions due at once that were put off, or that wait for their next try, by id or all that a filter "
        "finds. Workers run them; to run one here, see `i3tasks run`. Exit code 1 when one of them is not put off."
    )
    act = Act.RUN_NOW
    done = "made due"

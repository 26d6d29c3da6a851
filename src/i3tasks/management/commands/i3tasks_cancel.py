"""`i3tasks_cancel`, also `i3tasks cancel`: call off executions."""

from __future__ import annotations

from ...store.bulk import Act
from ..acting import ActCommand


class Command(ActCommand):
    help = (
        "Cancel executions, by id or all that a filter finds: waiting ones never run, running ones are told within a "
        "heartbeat. Exit code 1 when one of them has ended already."
    )
    act = Act.CANCEL
    done = "cancelled, or told to stop"

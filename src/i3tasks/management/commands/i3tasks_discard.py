"""`i3tasks_discard`, also `i3tasks discard`: delete executions."""

from __future__ import annotations

from ...store.bulk import Act
from ..acting import ActCommand


class Command(ActCommand):
    help = (
        "Delete executions with their tries and results, by id or all that a filter finds. Executions that run, that a "
        "group or a next step still needs, or whose idempotency key is in force stay; then the exit code is 1."
    )
    act = Act.DISCARD
    done = "deleted"
    asks_always = True

"""`i3tasks_retry`, also `i3tasks retry`: another try for executions that have failed."""

from __future__ import annotations

from ...store.bulk import Act
from ..acting import ActCommand


class Command(ActCommand):
    help = (
        "Give executions that have failed, or were cancelled, one more try, by id or all that a filter finds. Exit "
        "code 1 when one of them has not failed."
    )
    act = Act.RETRY
    done = "given another try"

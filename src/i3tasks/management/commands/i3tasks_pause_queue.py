"""`i3tasks_pause_queue`, also `i3tasks pause-queue`: pause a queue, so that none of its tries begins."""

from __future__ import annotations

from ...core.clock import current_clock
from ...store.database import time_of
from ...store.pauses import pause
from ..pausing import PausingCommand


def _pause(queue: str, *, by: str) -> bool:
    return pause(queue, by=by, now=time_of(current_clock()))


class Command(PausingCommand):
    help = "Pause queues: no try begins until they are resumed. Running tries end normally, new calls wait."
    change = staticmethod(_pause)
    done, undone = "is paused", "was paused already"

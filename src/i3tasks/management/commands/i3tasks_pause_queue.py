"""`i3tasks_pause_queue`, also `i3tasks pause-queue`: let nothing of a queue begin."""

from __future__ import annotations

from ...store.pauses import pause
from ..pausing import PausingCommand


class Command(PausingCommand):
    help = "Pause queues: nothing begins until they are resumed. What runs ends normally, what is enqueued waits."
    change = staticmethod(pause)
    done, undone = "is paused", "was paused already"

"""`i3tasks_resume_queue`, also `i3tasks resume-queue`: end the pause of a queue."""

from __future__ import annotations

from ...store.pauses import resume
from ..pausing import PausingCommand


class Command(PausingCommand):
    help = "Resume queues: their waiting tries are due at once."
    change = staticmethod(resume)
    done, undone = "is resumed", "was not paused"

"""`Task.discard`: deletes the waiting calls of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import ArgumentError
from ..store.bulk import Act
from ..store.search import Search
from ..store.states import State
from .options import AS_THE_TASK_SAYS

if TYPE_CHECKING:
    from ..registry import TaskSpec
    from .options import CallOptions

WAITING = (State.WAITING, State.RETRYING, State.DEFERRED)


def discard_waiting(spec: TaskSpec, options: CallOptions, min_tries: Any) -> int:
    """Delete the waiting calls of the task, on the queue of `options` if they name one. Returns the number deleted."""
    from ..engine.bulk import act_on_all

    if isinstance(min_tries, bool) or not isinstance(min_tries, int) or min_tries < 0:
        raise ArgumentError(f"min_tries is a number of tries, 0 or more, not {min_tries!r:.80}.")
    others = [name for name in options._fields if name != "queue_name"]
    if unfit := [name for name in others if getattr(options, name) != getattr(AS_THE_TASK_SAYS, name)]:
        raise ArgumentError(f"Of the options of using(), discard heeds queue_name only: leave {unfit[0]} out.")
    search = Search(states=WAITING, task=spec.path, queue=options.queue_name or "", min_tries=min_tries)
    done = 0
    for progress in act_on_all(search, Act.DISCARD, by=f"{spec.func_name}.discard"):
        done = progress.done
    return done

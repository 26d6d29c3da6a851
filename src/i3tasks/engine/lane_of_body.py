"""Takes the ORM calls of coroutines to the lanes of their bodies."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import ContextVar
from typing import Any

from asgiref.sync import ThreadSensitiveContext

from .shared_lanes import SharedLane, SharedLanes
from .waiting_bodies import current_body

_entered: ContextVar[LaneOfBody | None] = ContextVar("i3tasks_lane_of_body", default=None)


class LaneOfBody(Executor):
    """asgiref's executor for all bodies of a pool: it gives each body a lane at its first call.

    asgiref asks for an executor in a context that is entered. To enter one for each body would take a tenth of a
    no-op's time, and most bodies make no such call.
    """

    def __init__(self, lanes: SharedLanes) -> None:
        self._lanes = lanes

    def entered(self) -> AbstractAsyncContextManager[Any]:
        """Let `sync_to_async` use this while a block runs."""
        block: AbstractAsyncContextManager[Any] = ThreadSensitiveContext(executor=self)
        return block

    def enter(self) -> None:
        """The same for the current context and its copies, for good."""
        entering: Coroutine[Any, Any, Any] = self.entered().__aenter__()
        with suppress(StopIteration):  # it awaits nothing
            entering.send(None)
        _entered.set(self)

    @property
    def is_entered(self) -> bool:
        """Whether the current context is a copy of one that `enter` was called in."""
        return _entered.get() is self

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the call in the lane of the body in whose context this is called."""
        body = current_body.get()
        if body is None or body.has_ended:
            raise RuntimeError("The body has ended: a task that it left behind can't call sync code any more.")
        if body.lane is None:
            body.lane = SharedLane(self._lanes)
        return body.lane.submit(fn, *args, **kwargs)

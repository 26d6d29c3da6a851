"""Brings the answers of the writer's thread to those who asked: to coroutines, on their own loops."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..telemetry import emit
from .operations import Operation

LOCKED_DELAY = 0.01  # seconds that a request waits for a locked row; doubled each time

GiveBack = Callable[[Any], None]
"""Is called with an answer whose asker has gone."""


@dataclass(slots=True, eq=False)
class Item:
    """A request, and who waits for its answer."""

    operation: Operation[Any, Any]
    request: Any
    future: asyncio.Future[Any] | None = None
    then: Callable[[Any], None] | None = None
    delay: float = LOCKED_DELAY
    waited: float = 0.0  # seconds, for a locked row

    @property
    def is_abandoned(self) -> bool:
        return self.future is not None and self.future.done()


def deliver(answers: Iterable[tuple[Item, Any]], give_back: GiveBack) -> None:
    """Resolve futures on their own loops, with one wake-up a loop."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[Item, Any]]] = defaultdict(list)
    for item, answer in answers:
        if item.then is not None and (item.future is None or not isinstance(answer, Exception)):
            _tell(item.then, answer)
        if item.future is not None:
            by_loop[item.future.get_loop()].append((item, answer))
    for loop, resolved in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, resolved, give_back)
        except RuntimeError:  # the loop was closed
            for _, answer in resolved:
                give_back(answer)


def _resolve(answers: Iterable[tuple[Item, Any]], give_back: GiveBack) -> None:
    for item, answer in answers:
        assert item.future is not None
        if item.future.done():
            give_back(answer)
        elif isinstance(answer, Exception):
            item.future.set_exception(answer)
        else:
            item.future.set_result(answer)


def _tell(then: Callable[[Any], None], answer: Any) -> None:
    """An error in one callback must not keep the answers from the others."""
    try:
        then(answer)
    except Exception as error:
        emit("internal_error", where="writer", error=repr(error), exc_info=error)

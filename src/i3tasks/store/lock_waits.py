"""What becomes of requests whose rows another transaction has locked: they wait in the queue, not in the database."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..core.clock import Clock
from ..exceptions import StoreUnavailable
from ..telemetry import emit
from .delivering import Item
from .requests import LOCKED

LONGEST_DELAY = 1.0
CLAIM_SECONDS = 1.0
"""How long a claim waits; its worker has other tries to run."""
SAID_SECONDS = 60.0
"""So often at most the event `rows_locked` is emitted."""
NAMED = 10
"""Tries that the event names."""

Keep = Callable[[Item, float], bool]
"""Puts a request back for so many seconds. False: there was no room."""


class LockWaits:
    """Answers requests whose rows stay locked, or lets them wait. Used by the writer's thread."""

    def __init__(self, keep: Keep, clock: Callable[[], Clock]) -> None:
        self._keep, self._clock = keep, clock
        self._said_at = float("-inf")

    def put_back(self, answers: Iterable[tuple[Item, Any]]) -> list[tuple[Item, Any]]:
        """Put back those that are answered by LOCKED and have time left. Gives the final answers."""
        answers, final = [*answers], []
        self._say([item for item, answer in answers if answer is LOCKED and item.waited >= CLAIM_SECONDS])
        for item, answer in answers:
            if answer is not LOCKED:
                final.append((item, answer))
            elif item.operation.when_locked is not None and item.waited >= CLAIM_SECONDS:
                final.append((item, item.operation.when_locked))
            elif not self._wait(item):
                final.append((item, StoreUnavailable("The row is locked, and the writer's queue is full.")))
        return final

    def _wait(self, item: Item) -> bool:
        delay, item.delay = item.delay, min(item.delay * 2, LONGEST_DELAY)
        item.waited += delay
        return self._keep(item, delay)

    def _say(self, items: list[Item]) -> None:
        now = self._clock().monotonic()
        if not items or now - self._said_at < SAID_SECONDS:
            return
        self._said_at = now
        tries = dict.fromkeys(item.request.try_id for item in items if hasattr(item.request, "try_id"))
        emit("rows_locked", tries=[*tries][:NAMED], seconds=round(max(item.waited for item in items), 1))

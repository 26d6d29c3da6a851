"""Tells Pub/Sub which messages have arrived, while they are being carried out.

Google's library gives a message more time when it arrives, as it may have lain in a buffer on the way, and hands it
over only when Pub/Sub has answered: each message would wait for a round trip, and each response of the stream for
those before it. Here they are told a moment later, many at a time, and those that are answered by then not at all.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

from google.auth.exceptions import GoogleAuthError

from ..threads.batching import BatchThread
from .clients import api

GATHER_SECONDS = 0.1
"""How long a receipt waits for others. The shortest lease is ten seconds."""
MOST_IDS = 1000
"""In a request, as in the library's own: Pub/Sub takes no more than 512 KB."""
IDLE_SECONDS = 1.0


class Receipts:
    """The receipts of one session. `send(ack_ids, seconds)` makes a request; its errors of Google's are ignored."""

    def __init__(self, send: Callable[[Sequence[str], int], Any]) -> None:
        self._send = send
        self._changed = threading.Condition()
        self._waiting: defaultdict[int, set[str]] = defaultdict(set)  # by the seconds that they are given
        self._being_told: Collection[str] = ()
        # It has room for one item: the time to tell what waits by then.
        self._times: BatchThread[None] = BatchThread(
            "i3tasks-receipts", self._tell, max_batch=1, max_queued=1, idle_seconds=lambda: IDLE_SECONDS
        )

    def put(self, ack_ids: Iterable[str], seconds: int) -> None:
        """Tell, a moment later, that these messages have arrived and are to have so many seconds."""
        with self._changed:
            self._waiting[seconds].update(ack_ids)
        self._times.put(None, delay=GATHER_SECONDS)

    def answered(self, ack_ids: Iterable[str], *, wait: bool = False) -> None:
        """Leave out these messages, which are acked or nacked. `wait` until none of them is being told.

        A nacked message must not be given more time afterwards: it would come again so much later.
        """
        ids = {*ack_ids}
        with self._changed:
            for waiting in self._waiting.values():
                waiting -= ids
            if wait:
                self._changed.wait_for(lambda: ids.isdisjoint(self._being_told))

    def _tell(self, times: Sequence[None]) -> None:
        while some := self._take():
            seconds, ack_ids = some
            try:
                with suppress(api.GoogleAPICallError, GoogleAuthError):
                    self._send(ack_ids, seconds)
            finally:
                with self._changed:
                    self._being_told = ()
                    self._changed.notify_all()

    def _take(self) -> tuple[int, list[str]] | None:
        """The messages of the next request."""
        with self._changed:
            for seconds, waiting in self._waiting.items():
                if waiting:
                    self._being_told = [waiting.pop() for _ in range(min(MOST_IDS, len(waiting)))]
                    return seconds, self._being_told
        return None

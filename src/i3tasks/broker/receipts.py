"""Tells Pub/Sub which messages have arrived, while they are being carried out.

Google's library gives a message more time when it arrives, as it may have lain in a buffer on the way, and hands it
over only when Pub/Sub has answered: each message would wait for a round trip, and each response of the stream for
those before it. Here they are told a moment later, many at a time, and those that are answered by then not at all.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from google.auth.exceptions import GoogleAuthError

from ..threads.batching import BatchThread
from .clients import api

GATHER_SECONDS = 0.1
"""How long a receipt waits for others. The shortest lease is ten seconds."""
MOST_IDS = 2500
"""In a request, as in the library's own."""
MAXIMUM_QUEUED = 100_000
IDLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Receipt:
    """The messages of one response, and the seconds that they are given."""

    ack_ids: Sequence[str]
    seconds: int


class Receipts:
    """The receipts of one session. `send(ack_ids, seconds)` makes a request; its errors of Google's are ignored."""

    def __init__(self, send: Callable[[Sequence[str], int], Any]) -> None:
        self._send = send
        self._unanswered: set[str] = set()
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._batches: BatchThread[_Receipt] = BatchThread(
            "i3tasks-receipts",
            self._send_all,
            max_batch=MAXIMUM_QUEUED,
            max_queued=MAXIMUM_QUEUED,
            idle_seconds=lambda: IDLE_SECONDS,
        )

    def put(self, ack_ids: Iterable[str], seconds: int) -> None:
        """Tell, a moment later, that these messages have arrived and are to have so many seconds."""
        receipt = _Receipt([*ack_ids], seconds)
        with self._lock:
            self._unanswered.update(receipt.ack_ids)
        if not self._batches.put(receipt, delay=GATHER_SECONDS):
            self.answered(receipt.ack_ids)  # their leases are extended later all the same

    def answered(self, ack_ids: Iterable[str], *, wait: bool = False) -> None:
        """Leave out these messages, which are acked or nacked. `wait` until none is being told.

        A nacked message must not be given more time afterwards: it would come again so much later.
        """
        with self._lock:
            self._unanswered.difference_update(ack_ids)
        if wait:
            with self._sending:
                pass

    def _send_all(self, receipts: Sequence[_Receipt]) -> None:
        with self._sending:
            for seconds, ack_ids in self._taken(receipts).items():
                for start in range(0, len(ack_ids), MOST_IDS):
                    with suppress(api.GoogleAPICallError, GoogleAuthError):
                        self._send(ack_ids[start : start + MOST_IDS], seconds)

    def _taken(self, receipts: Iterable[_Receipt]) -> dict[int, list[str]]:
        taken: defaultdict[int, list[str]] = defaultdict(list)
        with self._lock:
            for receipt in receipts:
                taken[receipt.seconds] += self._unanswered.intersection(receipt.ack_ids)
                self._unanswered.difference_update(receipt.ack_ids)
        return {seconds: ack_ids for seconds, ack_ids in taken.items() if ack_ids}

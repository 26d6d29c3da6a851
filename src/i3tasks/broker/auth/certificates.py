"""A cache of the certificates that tokens are checked with. A separate thread fetches them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future

from ...core.clock import SYSTEM_CLOCK, Clock
from ...telemetry import emit
from .errors import CertificatesUnavailable
from .fetching import Fetched

FORCED_EVERY_SECONDS = 30.0
"""Shortest time between two early fetches that tokens with an unknown key cause."""
AGAIN_SECONDS = 1.0
"""Pause after a failed fetch while the cache is empty."""
AGAIN_WITH_COPY_SECONDS = 30.0
"""Pause after a failed fetch while the cache holds an old copy."""
WAIT_SECONDS = 8.0
"""Longest time that a request waits for a fetch."""


class CertificateCache:
    """The certificates of one source, for every thread and event loop of this process.

    An old copy is used while a new one is fetched, and for as long as fetches fail. Only one fetch runs at a time, and
    all requests that need it share it.
    """

    def __init__(self, fetch: Callable[[], Fetched], clock: Clock = SYSTEM_CLOCK) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._copy: Mapping[str, str] | None = None
        self._error: str | None = None  # why the last fetch failed
        self._under_way: Future[None] | None = None
        self._next_fetch = self._next_forced = -float("inf")

    async def all(self) -> Mapping[str, str]:
        """Give all certificates: key id -> PEM. Raises CertificatesUnavailable if there is not even an old copy."""
        fetch = self._fetch_if_old()
        if self._copy is None and fetch is not None:
            await _finished(fetch)
        if self._copy is None:
            raise CertificatesUnavailable(self._error)
        return self._copy

    async def find(self, key_id: str) -> str | None:
        """Find the certificate of a key, in PEM; None if there is no such key. Raises CertificatesUnavailable.

        A key that the copy lacks may be new, so the certificates are fetched again. A fetch that is already running may
        have begun before the key was published, so a second one follows it.
        """
        for _ in range(2):
            if key_id in await self.all():
                break
            fetch = self._fetch_anyway()
            if fetch is None:
                break
            await _finished(fetch)
        found = (await self.all()).get(key_id)
        if found is None and (self._error is not None or self._under_way is not None):
            raise CertificatesUnavailable(self._error)
        return found

    def _fetch_if_old(self) -> Future[None] | None:
        with self._lock:
            if self._under_way is None and self._clock.monotonic() >= self._next_fetch:
                self._begin()
            return self._under_way

    def _fetch_anyway(self) -> Future[None] | None:
        with self._lock:
            now = self._clock.monotonic()
            if self._under_way is None and now >= self._next_forced:
                self._next_forced = now + FORCED_EVERY_SECONDS
                self._begin()
            return self._under_way

    def _begin(self) -> None:
        self._under_way = Future()
        self._under_way.set_running_or_notify_cancel()  # a request that gives up waiting does not cancel it
        threading.Thread(target=self._run, name="i3tasks-certificates", daemon=True).start()

    def _run(self) -> None:
        try:
            fetched, error = self._fetch(), None
        except CertificatesUnavailable as unavailable:
            fetched, error = None, str(unavailable)
        except Exception as bug:
            fetched, error = None, repr(bug)
        if error is not None:
            emit("certificates_unavailable", error=error, has_copy=self._copy is not None)
        self._end(fetched, error)

    def _end(self, fetched: Fetched | None, error: str | None) -> None:
        with self._lock:
            if fetched is not None:
                self._copy, seconds = fetched.certificates, fetched.seconds
            else:
                seconds = AGAIN_SECONDS if self._copy is None else AGAIN_WITH_COPY_SECONDS
            self._error = error
            self._next_fetch = self._clock.monotonic() + seconds
            ended, self._under_way = self._under_way, None
        if ended is not None:
            ended.set_result(None)


async def _finished(fetch: Future[None]) -> None:
    """Wait at most WAIT_SECONDS until a fetch succeeds or fails."""
    waiting = asyncio.wrap_future(fetch)
    try:
        await asyncio.wait({waiting}, timeout=WAIT_SECONDS)
    finally:
        waiting.cancel()  # the loop may be closed when the fetch ends; the fetch itself goes on

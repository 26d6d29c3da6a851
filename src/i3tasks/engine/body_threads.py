"""The threads that run sync bodies. They take one body after the other from a queue that they share."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from django.db import connections

from .bodies import BodyEnding, Raised, Returned, answer_of
from .connections import call_apart, tidy
from .lease_renewal import HandedBack, Run
from .session_state import watch_this_thread
from .stacks import stack_of_thread

LONGEST_WAIT_SECONDS = 1.0
"""How long a claimed try waits for a thread that others keep. Then it is handed back, for another worker to run."""

Freed = Callable[[float | None], None]


class BodyThreads:
    """Up to `size` threads, created when needed. Belongs to one event loop.

    They are daemons, so a body that never ends can't keep the process alive.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._count = 0
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._held: dict[_Call, None] = {}  # those that were put and have not ended, in their order
        self._lock = threading.Lock()
        self._news: list[Callable[[], None]] = []  # of the threads, for the loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._review: asyncio.TimerHandle | None = None

    async def run(
        self, run: Run, function: Callable[[], Any], context: contextvars.Context, timeout: float | None, freed: Freed
    ) -> Returned | Raised:
        """Run the body in `context`, for at most `timeout` seconds from its start, or until `run` is stopped.

        `freed` is called when the thread is free again, with the seconds that the body was in it; with None if the
        body never began. A thread can't be killed, so this may be long after the answer.
        """
        if run.reason is not None:  # before it began
            freed(None)
            return Raised(run.reason)
        call = _Call(partial(call_apart, function), context, timeout, freed)
        call.ending = BodyEnding(run, halt=partial(self._withdraw, call))
        run.stack = call.stack
        self._put(call)
        await call.ending.wait()
        return answer_of(run, call.answer)

    def close(self) -> None:
        """Close the connections and end the threads, each after the body that it is running."""
        if self._review is not None:
            self._review.cancel()
        for _ in range(self._count):
            self._calls.put(None)

    def _put(self, call: _Call) -> None:
        self._loop = asyncio.get_running_loop()
        self._held[call] = None
        self._calls.put(call)
        if len(self._held) > self._count < self._size:
            threading.Thread(target=self._work, name=f"{self._name}-{self._count}", daemon=True).start()
            self._count += 1
        self._review_later()

    def _withdraw(self, call: _Call) -> bool:
        """Take back a call that no thread has begun. False: one has."""
        if not call.take():
            return False
        del self._held[call]
        call.freed(None)
        return True

    def _ended(self, call: _Call) -> None:
        del self._held[call]
        call.freed(call.seconds)
        call.ending.come()

    def _review_later(self) -> None:
        """Look now and then for calls that wait too long: those before them turned out to be longer than usual."""
        if self._review is None and self._held:
            self._review = asyncio.get_running_loop().call_later(LONGEST_WAIT_SECONDS, self._hand_back)

    def _hand_back(self) -> None:
        self._review = None
        latest = time.monotonic() - LONGEST_WAIT_SECONDS
        for call in [call for call in self._held if call.since <= latest]:
            if self._withdraw(call):
                call.ending.run.stop(HandedBack())
        self._review_later()

    # ----------------------------------------------------------------------------------------- in the threads

    def _work(self) -> None:
        watch_this_thread()
        while (call := self._calls.get()) is not None:
            if call.take():
                if call.timeout is not None:
                    self._tell(partial(call.ending.limit, call.timeout))
                call.carry_out()
                self._tell(partial(self._ended, call))
                tidy()
            del call
        connections.close_all()

    def _tell(self, news: Callable[[], None]) -> None:
        """Call `news` on the loop, which is woken once for all calls that come before its turn."""
        with self._lock:
            self._news.append(news)
            is_first = len(self._news) == 1
        if is_first and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and so is the pool
                self._loop.call_soon_threadsafe(self._listen)

    def _listen(self) -> None:
        with self._lock:
            told, self._news = self._news, []
        for news in told:
            news()


class _Call:
    """A sync body on its way through a thread."""

    __slots__ = (
        "_context",
        "_function",
        "_ticket",
        "answer",
        "ending",
        "freed",
        "seconds",
        "since",
        "thread",
        "timeout",
    )

    ending: BodyEnding

    def __init__(
        self,
        function: Callable[[], Returned | Raised],
        context: contextvars.Context,
        timeout: float | None,
        freed: Freed,
    ) -> None:
        self._function = function
        self._context = context
        self._ticket = [True]
        self.timeout = timeout
        self.freed = freed
        self.since = time.monotonic()
        self.seconds = 0.0
        self.thread: int | None = None
        self.answer: Returned | Raised | None = None

    def take(self) -> bool:
        """Take the right to begin the body, or to withdraw it. True for the first, from whichever thread it comes."""
        try:
            return self._ticket.pop()
        except IndexError:
            return False

    def stack(self) -> str:
        """Where the body is; "" before it has begun and once it has ended: then its thread runs another one."""
        text = stack_of_thread(self.thread)
        return text if self.answer is None else ""

    def carry_out(self) -> None:
        began = time.monotonic()
        self.thread = threading.get_ident()
        try:
            self.answer = self._context.run(self._function)
        except BaseException as error:  # from around the body: the try fails at once, the thread goes on
            self.answer = Raised(error)
        self.seconds = time.monotonic() - began

"""Keeps from forked children what is their parent's alone: locks that are held, and its signal handlers."""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

SAME_SIGNAL_SECONDS = 1.0
"""How long after the first signal another one is ignored: supervisors send two, and systemd SIGHUP after SIGTERM."""
FORK_WAITS_SECONDS = 5.0  # a holder that hangs must not prevent forks for ever


class ForkBarrier:
    """A lock that a fork of the process waits for, up to `seconds`. Use: `with barrier.held():`.

    It protects work that must not be half done at the time of a fork: the child has none of its parent's threads, so
    the work would never be finished there. Create barriers at module level, as they live as long as the process.
    """

    def __init__(self, seconds: float = FORK_WAITS_SECONDS) -> None:
        self.was_passed = False
        """In a child: whether it was forked although the lock was held."""
        self._seconds = seconds
        self._lock = threading.RLock()
        self._stops_fork = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._after_in_child)

    def held(self) -> AbstractContextManager[object]:
        return self._lock

    def _before(self) -> None:
        self._stops_fork = self._lock.acquire(timeout=self._seconds)

    def _after(self) -> None:
        if self._stops_fork:
            self._lock.release()

    def _after_in_child(self) -> None:
        self.was_passed |= not self._stops_fork
        self._lock = threading.RLock()


_handlers_before: dict[int, Any] = {}
_are_reset = False


@contextmanager
def signals_heard(
    hear: Callable[[int, FrameType | None], None], numbers: Iterable[int], *, with_echoes: bool = False
) -> Iterator[None]:
    """Let `hear` handle these signals in this process only. A forked child gets the previous handlers back.

    `with_echoes`: signals within a second of the first one count as the same signal, also after the end of the block,
    so that a process that has done its work ends well.

    A SIGHUP that is ignored stays so: `nohup` asks for that. Outside the main thread, where Python allows no handlers,
    it changes nothing: the process belongs to others there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_without_terminal = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    heard = [number for number in numbers if not (is_without_terminal and number == signal.SIGHUP)]
    first: list[float] = []

    def note(number: int, frame: FrameType | None) -> None:
        first.append(time.monotonic())
        del first[1:]
        hear(number, frame)

    before = {number: signal.signal(number, note) or signal.SIG_DFL for number in heard}
    _handlers_before.update(before)
    try:
        yield
    finally:
        _restore(before)
        if first and with_echoes:
            _ignore_echoes(before, first[0] + SAME_SIGNAL_SECONDS)


def reset_signals_in_children() -> None:
    """From now on, let forked children end on the signals that a web server handles: it is not theirs to stop."""
    global _are_reset
    _are_reset = True


def _handlers_of_children() -> dict[int, Any]:
    """The handlers that a child forked now is to have, where they are not those of its parent."""
    if not _are_reset:
        return _handlers_before
    defaults: dict[int, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    handled = {number: default for number, default in defaults.items() if callable(signal.getsignal(number))}
    return {**handled, **_handlers_before}


def _ignore_echoes(handlers: dict[int, Any], until: float) -> None:
    """Ignore these signals until then; afterwards they do what `handlers` say."""

    def hear(number: int, _: FrameType | None) -> None:
        if time.monotonic() >= until:
            signal.signal(number, handlers[number])
            signal.raise_signal(number)

    def end() -> None:  # Python takes its handlers back before it ends
        for number in handlers:
            if signal.getsignal(number) is hear and time.monotonic() < until:
                signal.signal(number, signal.SIG_IGN)

    for number in handlers:
        signal.signal(number, hear)
    atexit.register(end)


def _restore(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
        _handlers_before.pop(number, None)


def _hold_signals() -> None:
    """Block the signals before a fork: one that reached the child before its handlers are restored would be lost."""
    _forking.handlers = _handlers_of_children()
    if _forking.handlers:
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _forking.handlers.keys())


def _let_signals_go() -> None:
    mask = getattr(_forking, "mask", None)
    if mask is not None:
        _forking.mask = None
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _restore_in_child() -> None:
    """Restore the handlers in the child: multiprocessing ends children by SIGTERM and waits until they have ended."""
    handlers = getattr(_forking, "handlers", None)
    if handlers:
        signal.set_wakeup_fd(-1)
        _restore(dict(handlers))
    _let_signals_go()


_forking = threading.local()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals_go, after_in_child=_restore_in_child)

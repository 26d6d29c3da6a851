"""Importing Google's library late, in whatever thread needs it, without leaving half a module to a forked child."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_FORK_WAITS_SECONDS = 5.0  # an import that hangs must not keep the process from forking

_importing = threading.RLock()
_held_by_fork = False


@contextmanager
def importing() -> Iterator[None]:
    """Put around whatever imports Google's library, or makes it import more of itself. Forks wait for its end."""
    with _importing:
        yield


def _before_fork() -> None:
    global _held_by_fork
    _held_by_fork = _importing.acquire(timeout=_FORK_WAITS_SECONDS)


def _after_fork_in_parent() -> None:
    if _held_by_fork:
        _importing.release()


def _after_fork_in_child() -> None:
    global _importing
    _importing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

"""Keeps forked children whole: they get no half-imported library of Google's, and use no gRPC that is broken.

The library is imported late, in the thread that needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module

from ..threads.forking import ForkBarrier
from .late_modules import answer, put_off

_importing = ForkBarrier()
_talking = ForkBarrier(3.0)
talking = _talking.held
"""Context manager for requests to Pub/Sub. A fork waits for them, though not for long: the broker may be away."""

SIGNING = "google.oauth2.service_account"
"""The module of Google's library that imports `cryptography`."""

GUESSING = "charset_normalizer"
"""The module by which `requests`, which Google's library imports, guesses the encoding of pages: 2.5 MB."""

_FORK_SUPPORT = "GRPC_ENABLE_FORK_SUPPORT"
_is_ours = False  # the variable
_has_streams = False
_is_cut_off = False


@contextmanager
def importing() -> Iterator[None]:
    """Hold this around code that imports Google's library, or more parts of it. A fork waits until the code ends."""
    with _importing.held():
        put_off(SIGNING)
        put_off(GUESSING)
        with suppress(ImportError, AttributeError):  # `requests` asks for the version, and may do without the module
            answer(GUESSING, "__version__", import_module(f"{GUESSING}.version").__version__)
        yield


def leave_forks_alone() -> None:
    """Keep gRPC's fork handlers out of this process, whose streams are always at work: they would abort children.

    gRPC reads the variable when it is imported and first used.
    """
    global _is_ours
    if _FORK_SUPPORT not in os.environ:
        os.environ[_FORK_SUPPORT], _is_ours = "0", True


def note_streams() -> None:
    """Note that this process has opened a stream. Programs that it starts decide about gRPC themselves."""
    global _has_streams, _is_ours
    _has_streams = True
    if _is_ours:
        os.environ.pop(_FORK_SUPPORT, None)
        _is_ours = False


def is_cut_off() -> bool:
    """Whether this process was forked from one in which gRPC was at work, and so can't use it."""
    return _is_cut_off


def _after_fork_in_child() -> None:
    global _is_cut_off
    has_no_support = os.environ.get(_FORK_SUPPORT) == "0" and "grpc" in sys.modules
    _is_cut_off |= _has_streams or _talking.was_passed or has_no_support


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

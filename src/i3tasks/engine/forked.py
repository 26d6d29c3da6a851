"""The end of a child process that a body forks.

The child has one thread of its parent's: the one that forked. It must not go on as a second worker, so it ends where
the body's code ends in it; and it gets database connections of its own.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any, NoReturn

from django.db import connections

from .session_state import is_watched

_loops: dict[int, asyncio.AbstractEventLoop] = {}  # by the thread in which they run bodies
_inherited: list[Any] = []  # referred to, so that the child does not close its parent's connections


def end_child(parent: int, error: BaseException | None) -> None:
    """End this process if it is not `parent`, in the way of an interpreter that has run only the body's code."""
    if os.getpid() == parent:
        return
    code: Any = 0
    if isinstance(error, SystemExit):
        code = 1 if isinstance(error.code, str) else error.code or 0
    elif error is not None:
        code = 1
        traceback.print_exception(error)
    from . import outbox  # which imports models: a child of `isolation` imports this module before Django is set up

    outbox.flush_now()
    _end(code)


def own_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Note that this thread's loop runs bodies: in a child that one of them forks, it must run nothing."""
    _loops[threading.get_ident()] = loop


def _end(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def _after_fork_in_child() -> None:
    if is_watched():
        _open_own_connections()
    loop = _loops.get(threading.get_ident())
    if loop is not None and loop.is_running():
        _stop_at_next_turn(loop)


def _open_own_connections() -> None:
    """Let the next query open a connection: two processes can't talk over one."""
    for connection in connections.all(initialized_only=True):
        _inherited.append(connection)
        pools = getattr(type(connection), "_connection_pools", None)  # of psycopg
        if pools:
            _inherited.append(dict(pools))
            pools.clear()
        del connections[connection.alias]


def _stop_at_next_turn(loop: Any) -> None:
    """End the child before its copy of the loop does anything: the tasks and connections are its parent's."""
    handle = asyncio.Handle(_refuse_to_wait, (), loop)
    if hasattr(loop, "_ready"):
        loop._ready.appendleft(handle)
    else:
        loop.call_soon(_refuse_to_wait)


def _refuse_to_wait() -> None:
    sys.stderr.write("A child that a coroutine forked can't await anything. End it by os._exit().\n")
    _end(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

"""Sync bodies in processes of their own (`isolation="process"`), which a timeout or a cancellation really ends.

Processes are spawned, kept warm with Django set up, and reused. Only what can be pickled travels.
"""

from __future__ import annotations

import os
import pickle
from dataclasses import fields

import anyio.to_process
from anyio import BrokenWorkerProcess, CapacityLimiter

from ..exceptions import WorkerLost
from ..registry import TaskSpec
from ..values import decode
from .bodies import Raised, Returned
from .child import Body, Failed, run_body
from .running import Run, metadata_of


def body_of(spec: TaskSpec, run: Run) -> Body:
    """The body of a claimed try, for `run_in_child`."""
    metadata = None
    if spec.options.bind:
        told = metadata_of(spec, run)
        metadata = {item.name: getattr(told, item.name) for item in fields(told) if item.repr}
    claimed = run.claimed
    return Body(claimed.module_name, claimed.func_name, claimed.args, claimed.kwargs, metadata)


async def run_in_child(body: Body, limiter: CapacityLimiter) -> Returned | Raised:
    """Run `body` in a child process. Cancelling this kills the process."""
    try:
        answer = await anyio.to_process.run_sync(run_body, os.getpid(), body, cancellable=True, limiter=limiter)
    except BrokenWorkerProcess:
        return Raised(WorkerLost("The process that ran the body died. Did it run out of memory, or call os._exit?"))
    except Exception as error:  # no process could be started, or Django not be set up in it
        return Raised(error)
    if isinstance(answer, Failed):
        return Raised(_as_error(answer))
    return Returned(decode(answer))


class ChildTraceback(Exception):
    """Brings the child's traceback along, as the cause of the error that is raised again in the worker."""

    def __str__(self) -> str:
        return f"in the child process:\n{self.args[0]}"


def _as_error(failed: Failed) -> BaseException:
    error = None if failed.pickled is None else _unpickled(failed.pickled)
    if error is None:  # a stand-in of the same name, so that the row shows the real one
        kind = type(failed.qualname, (Exception,), {"__module__": failed.module, "__qualname__": failed.qualname})
        error = kind(failed.record.message)
    error.__cause__ = ChildTraceback(failed.record.traceback)
    return error


def _unpickled(pickled: bytes) -> BaseException | None:
    """None: it can't be read here, though it could in the child."""
    try:
        error = pickle.loads(pickled)
    except BaseException:  # also SystemExit, which would take the worker with it
        return None
    return error if isinstance(error, BaseException) else None

"""Runs sync bodies in child processes (`isolation="process"`), which a timeout or a cancellation ends.

A body that is to end gets SIGTERM, raised in it as TaskCancelled, and `process_grace_seconds` to clean up.

The processes set up Django once, and are reused. Only data that can be pickled passes between them: see `processes`.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import fields

from ..conf import get_config
from ..exceptions import WorkerLost
from ..registry import TaskSpec
from ..telemetry.propagation import travels_now
from .bodies import STOPPING_SECONDS, Raised, Returned
from .child import ChildBody, Failed, run_body, stand_in
from .lease_renewal import HandedBack, Run, metadata_of
from .processes import ChildProcesses, ProcessDied
from .stacks import stack_of_dump
from .waiting_bodies import ChildsPlace


def body_of(spec: TaskSpec, run: Run, place: ChildsPlace | None, output: str | None) -> ChildBody:
    """Return the body of a claimed try in the form that `run_in_child` takes."""
    metadata = None
    if spec.options.bind:
        told = metadata_of(spec, run)
        metadata = {item.name: getattr(told, item.name) for item in fields(told) if item.repr}
    named = run.claimed
    return ChildBody(
        named.module_name,
        named.func_name,
        named.args,
        named.kwargs,
        metadata,
        named.facts,
        place,
        output,
        travels_now(),
    )


async def run_in_child(run: Run, body: ChildBody, processes: ChildProcesses) -> Returned | Raised:
    """Run `body` in a child process. A cancellation of this call ends the process."""

    def begun(dump: Callable[[], str]) -> None:
        run.stack = lambda: stack_of_dump(dump())

    def grace() -> tuple[float, str]:
        seconds = get_config().settings.process_grace_seconds
        is_worker_ending = run.reason is None or isinstance(run.reason, HandedBack)
        told = str(run.reason or "") or "The worker is ending, and hands the try back."
        return min(seconds, STOPPING_SECONDS) if is_worker_ending else seconds, told

    try:
        answer = await processes.call(run_body, os.getpid(), body, begun=begun, grace=grace)
    except ProcessDied:
        return Raised(WorkerLost("The process that ran the body died. Did it run out of memory, or call os._exit?"))
    except Exception as error:  # the process could not be started, or Django failed to set up in it
        return Raised(error)
    if isinstance(answer, Failed):
        return Raised(_as_error(answer))
    return Returned(answer)


class ChildTraceback(Exception):
    """Carries the child's traceback, as the cause of the error that is raised again in the worker."""

    def __str__(self) -> str:
        return f"in the child process:\n{self.args[0]}"


def _as_error(failed: Failed) -> BaseException:
    error = None if failed.pickled is None else _unpickled(failed.pickled)
    if error is None:
        error = stand_in(failed.module, failed.qualname, failed.record.message)
    BaseException.__setattr__(error, "__cause__", ChildTraceback(failed.record.traceback))  # also of a frozen dataclass
    return error


def _unpickled(pickled: bytes) -> BaseException | None:
    """Return the error, or None if this process can't unpickle it although the child could."""
    try:
        error = pickle.loads(pickled)
    except BaseException:  # also SystemExit, which would end the worker
        return None
    return error if isinstance(error, BaseException) else None

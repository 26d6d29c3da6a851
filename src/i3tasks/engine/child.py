"""The code that runs in the child processes of `isolation`.

The child imports it before Django is set up, so this module imports no models.
"""

from __future__ import annotations

import contextvars
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, TextIO

import django
from django.apps import apps

from ..conf import get_config
from ..core.outcome import ErrorRecord
from ..core.values import decode, encode_result
from ..exceptions import TaskCancelled
from ..metadata import TaskMetadata
from ..registry import load
from ..telemetry import Facts, run_bound
from ..telemetry.propagation import Travels, continuing
from ..threads.forking import signals_heard
from . import waiting_bodies
from .bodies import Raised, Returned
from .child_output import output_at
from .connections import call_apart, tidy
from .processes import told_to_end
from .session_state import watch_this_thread
from .waiting_bodies import ChildsPlace, ChildWaits, current_body

_PARENT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ChildBody:
    """A body for the child to run: the names of the task, and its arguments as JSON data."""

    module_name: str
    func_name: str
    args: list[Any]
    kwargs: dict[str, Any]
    metadata: dict[str, Any] | None  # fields of TaskMetadata
    facts: Facts  # what its log lines say of the try
    place: ChildsPlace | None
    output: str | None  # where the worker hands over its stdout and stderr
    travels: Travels | None  # what its own calls take along


@dataclass(frozen=True, slots=True)
class Failed:
    """An exception on its way from a child to the worker."""

    pickled: bytes | None
    module: str
    qualname: str
    record: ErrorRecord


def run_body(parent: int, body: ChildBody) -> Any:
    """Run the body in the child. Returns its return value as an EncodedResult, or Failed."""
    _end_with(parent)
    with _own_streams(body.output):
        if not apps.ready:
            django.setup()
        watch_this_thread()
        try:
            with run_bound(body.facts), continuing(body.travels):
                answer = contextvars.copy_context().run(_call_apart, body)
        finally:
            tidy()
    if isinstance(answer, Returned):
        return encode_result(answer.value, get_config().settings.maximum_payload_bytes)
    return _as_failed(answer.error)


def _call_apart(body: ChildBody) -> Returned | Raised:
    if body.place is not None:
        with suppress(OSError):  # the worker is gone, or about to end
            current_body.set(waiting_bodies.CurrentBody(ChildWaits(body.place), in_thread=True))
    return call_apart(lambda: _call(body))


def _call(body: ChildBody) -> Any:
    spec = load(body.module_name, body.func_name)
    kwargs = {key: decode(value) for key, value in body.kwargs.items()}
    args = [decode(value) for value in body.args]
    global _cancelled
    _cancelled = threading.Event()
    if body.metadata is not None:
        kwargs[spec.metadata_name] = TaskMetadata(**body.metadata, _cancelled=_cancelled)
    try:  # not a context manager, which would write the traceback into errors: some are frozen
        _end_if_told()  # the signal may have come before the body
        return spec.function(*args, **kwargs)
    finally:
        _cancelled = None


_cancelled: threading.Event | None = None
"""The event that tells the running body of its cancellation; None between bodies."""


def _end_if_told(*_: object) -> None:
    """Handle SIGTERM, or ignore it if it is not the worker's."""
    if _cancelled is not None and (reason := told_to_end()) is not None:
        _cancelled.set()
        raise TaskCancelled(reason or "The worker has ended, and with it the body.")


def _as_failed(error: BaseException) -> Failed:
    return Failed(_pickled(error), type(error).__module__, type(error).__qualname__, ErrorRecord.of(error))


def _pickled(error: BaseException) -> bytes | None:
    for form in (error, _Remade(error)):
        try:
            pickled = pickle.dumps(form)
            if type(pickle.loads(pickled)) is type(error):
                return pickled
        except BaseException:  # even if its methods raise, the failure must reach the worker
            continue
    return None


class _Remade:
    """Pickles an error that can't be pickled directly, mostly because its `__init__` takes more than `args` holds.

    The error must keep its class, which decides whether the try is retried. Those in a group decide, too.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        kept = {name: value for name, value in vars(self._error).items() if _can_pickle(value)}
        if isinstance(self._error, BaseExceptionGroup):
            parts = [_pickled(part) or pickle.dumps(_StandIn(part)) for part in self._error.exceptions]
            return _remake_group, (type(self._error), self._error.message, parts, kept)
        args = self._error.args if _can_pickle(self._error.args) else (str(self._error),)
        return _remake, (type(self._error), args, kept)


def _remake(kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    BaseException.__setattr__(error, "args", args)  # also if its class refuses attributes, as a frozen dataclass does
    vars(error).update(attributes)
    return error


def _remake_group(
    kind: type[BaseExceptionGroup[Any]], message: str, parts: list[bytes], attributes: dict[str, Any]
) -> BaseException:
    error = BaseExceptionGroup.__new__(kind, message, [pickle.loads(part) for part in parts])
    vars(error).update(attributes)
    return error


class _StandIn:
    """Pickles an error of a class that only the child can name."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        kind, record = type(self._error), ErrorRecord.of(self._error)
        return stand_in, (kind.__module__, kind.__qualname__, record.message, isinstance(self._error, Exception))


def stand_in(module: str, qualname: str, message: str, is_exception: bool = True) -> BaseException:
    """An error of another class of the same name, so that rows and tracebacks show the real one."""
    base = Exception if is_exception else BaseException
    kind: Any = type(qualname, (base,), {"__module__": module, "__qualname__": qualname})
    error: BaseException = kind(message)
    return error


def _can_pickle(value: Any) -> bool:
    try:
        pickle.loads(pickle.dumps(value))
    except BaseException:
        return False
    return True


@contextmanager
def _own_streams(output: str | None) -> Iterator[None]:
    """Give the body /dev/null as stdin, and the worker's stdout and stderr. Without these, /dev/null, too.

    The worker talks to this process through its stdin and stdout, so neither the body nor a program that it starts may
    use them. No process reads the child's stderr, so its pipe would fill up.
    """
    kept = {number: os.dup(number) for number in (0, 1)}
    nothing = os.open(os.devnull, os.O_RDWR)
    printed, logged = (output and output_at(output)) or (nothing, nothing)
    if printed != nothing:
        sys.stdout = _text_stream(printed)
    try:
        for number, stream in enumerate((nothing, printed, logged)):
            os.dup2(stream, number)
        yield
    finally:
        for number, stream in kept.items():
            os.dup2(stream, number)
        for opened in (nothing, *kept.values()):
            os.close(opened)


@cache
def _text_stream(number: int) -> TextIO:
    """The stream that `print` writes to. It stays open: threads that a body leaves behind may go on to print."""
    return open(number, "w", buffering=1, closefd=False)


_watching: set[int] = set()


def _end_with(parent: int) -> None:
    """End this process soon after its parent: the children of a worker that was killed must not stay."""
    if parent not in _watching:
        _watching.add(parent)
        _leave_signals_to_the_worker()
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


def _leave_signals_to_the_worker() -> None:
    """Ignore the signals that Ctrl-C and service managers send to all processes: the worker decides when a body ends.

    Programs that a body starts, and processes that it forks, still end on these signals.
    """
    _heard.enter_context(signals_heard(lambda *_: None, (signal.SIGINT, signal.SIGHUP)))
    _heard.enter_context(signals_heard(_end_if_told, (signal.SIGTERM,)))


_heard = ExitStack()  # never left

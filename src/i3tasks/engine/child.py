"""What runs in a child process, for `processes`. Imported there before Django is set up, so it imports no models."""

from __future__ import annotations

import contextvars
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import django
from django.apps import apps
from django.db import close_old_connections

from ..metadata import TaskMetadata
from ..outcome import ErrorRecord
from ..registry import load
from ..values import decode, encode_result
from .bodies import Returned
from .connections import call_apart

_PARENT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Body:
    """What the child needs to know. Arguments are JSON data."""

    module_name: str
    func_name: str
    args: list[Any]
    kwargs: dict[str, Any]
    metadata: dict[str, Any] | None  # fields of TaskMetadata


@dataclass(frozen=True, slots=True)
class Failed:
    """An exception on its way from a child to the worker."""

    pickled: bytes | None
    module: str
    qualname: str
    record: ErrorRecord


def run_body(parent: int, body: Body) -> Any:
    """In the child: the body's return value as JSON data, or Failed."""
    _end_with(parent)
    with _own_streams():
        if not apps.ready:
            django.setup()
        close_old_connections()
        try:
            answer = contextvars.copy_context().run(call_apart, lambda: _call(body))
        finally:
            close_old_connections()
    if isinstance(answer, Returned):
        return encode_result(answer.value)
    return _as_failed(answer.error)


def _call(body: Body) -> Any:
    spec = load(body.module_name, body.func_name)
    kwargs = {key: decode(value) for key, value in body.kwargs.items()}
    if body.metadata is not None:
        kwargs["task_metadata"] = TaskMetadata(**body.metadata)
    return spec.function(*(decode(value) for value in body.args), **kwargs)


def _as_failed(error: BaseException) -> Failed:
    return Failed(_pickled(error), type(error).__module__, type(error).__qualname__, ErrorRecord.of(error))


def _pickled(error: BaseException) -> bytes | None:
    for form in (error, _Remade(error)):
        try:
            pickled = pickle.dumps(form)
            if type(pickle.loads(pickled)) is type(error):
                return pickled
        except BaseException:  # whatever their methods raise, the worker must hear of the failure
            continue
    return None


class _Remade:
    """Pickles an error whose own way fails, mostly because its `__init__` wants what `args` does not have.

    Its class must not get lost: it says whether there is another try.
    """

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        kept = {name: value for name, value in vars(self._error).items() if _can_pickle(value)}
        args = self._error.args if _can_pickle(self._error.args) else (str(self._error),)
        return _remake, (type(self._error), args, kept)


def _remake(kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(attributes)
    return error


def _can_pickle(value: Any) -> bool:
    try:
        pickle.loads(pickle.dumps(value))
    except BaseException:
        return False
    return True


@contextmanager
def _own_streams() -> Iterator[None]:
    """The worker talks through our stdin and stdout: what a body, or a program it starts, reads and writes must not
    get in between. Nobody reads our stderr, which would fill up."""
    kept = {number: os.dup(number) for number in (0, 1)}
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        yield
    finally:
        for number, stream in kept.items():
            os.dup2(stream, number)
        for opened in (nothing, *kept.values()):
            os.close(opened)


_watching: set[int] = set()


def _end_with(parent: int) -> None:
    """A worker that was killed takes its children with it."""
    if parent not in _watching:
        _watching.add(parent)
        _leave_signals_to_the_worker()
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)


def _leave_signals_to_the_worker() -> None:
    """Ctrl-C and service managers signal all processes at once, but it is the worker that decides what ends, and when.

    Programs that a body starts, and processes that it forks, are to end as usual.
    """
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=restore)

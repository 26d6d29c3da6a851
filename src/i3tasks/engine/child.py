"""What runs in a child process, for `processes`. Imported there before Django is set up, so it imports no models."""

from __future__ import annotations

import os
import pickle
import threading
import time
from dataclasses import dataclass
from typing import Any

import django
from django.apps import apps
from django.db import close_old_connections

from ..metadata import TaskMetadata
from ..outcome import ErrorRecord
from ..registry import load
from ..values import decode, encode_result
from .bodies import Returned, call

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
    if not apps.ready:
        django.setup()
    close_old_connections()
    try:
        answer = call(lambda: _call(body))
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
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:
        pickled = None
    return Failed(pickled, type(error).__module__, type(error).__qualname__, ErrorRecord.of(error))


_watching: set[int] = set()


def _end_with(parent: int) -> None:
    """A worker that was killed takes its children with it."""
    if parent not in _watching:
        _watching.add(parent)
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)

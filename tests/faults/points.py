"""Fault points: where a worker process is made to die, or to lose the answer of the database.

An app of a child process's settings (see tests/process_settings.py). Nothing in src knows of it: named functions are
wrapped when Django is ready. `I3TASKS_FAULT` is "point" or "point:n", the n-th passage being the fatal one.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from django.apps import AppConfig
from django.conf import settings

EXIT_CODE = 86
_lock = threading.Lock()


def _counter(fatal: int) -> Callable[[], bool]:
    """True at the n-th call, and then never again."""
    passages = itertools.count(1)

    def passing() -> bool:
        with _lock:
            return next(passages) == fatal

    return passing


def die() -> None:
    os._exit(EXIT_CODE)


def _before(owner: Any, name: str, is_fatal: Callable[[], bool]) -> None:
    function = getattr(owner, name)

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if is_fatal():
            die()
        return function(*args, **kwargs)

    setattr(owner, name, wrapped)


def _after(owner: Any, name: str, is_fatal: Callable[[], bool]) -> None:
    function = getattr(owner, name)

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        answer = function(*args, **kwargs)
        if is_fatal():
            die()
        return answer

    setattr(owner, name, wrapped)


def _in_writer(operation_name: str, *, is_fatal: Callable[[], bool], where: str) -> None:
    """Around the writer's transactions that hold such a request: before, inside, after, or at COMMIT's reply."""
    from django.db import OperationalError

    from i3tasks.store import operations, plain_answers, writer

    operation = getattr(operations, operation_name)
    run_all, answer_plain = writer.Writer._run_all, writer.answer_plain
    execute = operation.run

    def begin(*, is_concerned: bool) -> None:
        if is_concerned and where == "before" and is_fatal():
            die()

    def end(*, is_concerned: bool) -> None:
        if is_concerned and where == "after" and is_fatal():
            die()
        if is_concerned and where == "reply" and is_fatal():
            print("a reply is lost", flush=True)
            raise OperationalError("the connection was lost before COMMIT was answered")

    def wrapped(self: Any, items: Sequence[Any], asked: Any) -> Any:
        is_concerned = any(item.operation is operation for item in items)
        begin(is_concerned=is_concerned)
        answers = run_all(self, items, asked)
        end(is_concerned=is_concerned)
        return answers

    def plain(requests: Any, now: Any) -> Any:
        begin(is_concerned=operation in requests and plain_answers.can_ask_together())
        answers = answer_plain(requests, now)
        end(is_concerned=bool(answers.get(operation)))
        return answers

    def inside(requests: Any, **kwargs: Any) -> Any:
        answers = execute(requests, **kwargs)
        if is_fatal():
            die()
        return answers

    if where == "inside":
        object.__setattr__(operation, "run", inside)
        # One message to the database has no inside: it is carried out whole, or not at all.
        writer.answer_plain = lambda requests, now: {}
    else:
        writer.Writer._run_all = wrapped  # type: ignore[method-assign]
        writer.answer_plain = plain


def _follow_up(is_fatal: Callable[[], bool], *, after: bool) -> None:
    from i3tasks.engine.executor import Executor

    original = Executor.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        (_after if after else _before)(self, "_follow_up", is_fatal)

    Executor.__init__ = init  # type: ignore[method-assign]


def _dispatcher(name: str, is_fatal: Callable[[], bool]) -> None:
    """After the dispatcher's transaction, before it publishes what that gave; when it gave something."""
    from i3tasks.engine import dispatcher

    function = getattr(dispatcher, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        answer = function(*args, **kwargs)
        if answer and is_fatal():
            die()
        return answer

    setattr(dispatcher, name, wrapped)


def install(point: str, fatal: int) -> None:
    from i3tasks.broker import publisher
    from i3tasks.broker.deliveries import Incoming
    from i3tasks.engine import outbox
    from i3tasks.engine.executor import Executor

    now = _counter(fatal)
    points: dict[str, Callable[[], None]] = {
        "enqueued": lambda: _before(outbox, "send", now),
        "published": lambda: _after(publisher.Publisher, "_send_or_provision", now),
        "confirmed": lambda: _after(outbox, "_published", now),
        "received": lambda: _before(Executor, "read", now),
        "taken waiting": lambda: _in_writer("TAKE_WAITING", is_fatal=now, where="after"),
        "claiming": lambda: _in_writer("CLAIM", is_fatal=now, where="inside"),
        "claimed": lambda: _in_writer("CLAIM", is_fatal=now, where="after"),
        "before body": lambda: _before(Executor, "_run", now),
        "after body": lambda: _before(Executor, "_settle", now),
        "settling": lambda: _in_writer("SETTLE", is_fatal=now, where="inside"),
        "settled": lambda: _in_writer("SETTLE", is_fatal=now, where="after"),
        "before follow-up": lambda: _follow_up(now, after=False),
        "after follow-up": lambda: _follow_up(now, after=True),
        "before ack": lambda: _before(Incoming, "ack", now),
        "after ack": lambda: _after(Incoming, "ack", now),
        "taken due": lambda: _dispatcher("take_due", now),
        "expired": lambda: _dispatcher("expire_leases", now),
        "claim's reply": lambda: _in_writer("CLAIM", is_fatal=now, where="reply"),
        "settlement's reply": lambda: _in_writer("SETTLE", is_fatal=now, where="reply"),
        "confirmation": lambda: _in_writer("CONFIRM", is_fatal=now, where="inside"),
    }
    points[point]()


class PointsConfig(AppConfig):
    name = "tests.faults.points"
    label = "faults"

    def ready(self) -> None:
        point, _, number = settings.I3TASKS_FAULT.partition(":")
        install(point, int(number or 1))

"""Django signals of tasks.

    from i3tasks.signals import task_finished

    @receiver(task_finished, sender=send_email)
    async def told(sender, outcome, execution_id, **facts): ...

Receivers are called apart from the work: in a thread of their own, in the order of what happened, coroutines awaited.
So a slow one delays other receivers and no task, and one that raises is an event, `consumer_failed`. `sync_run`, `arun`
and `force_sync` call them in the caller's thread, once the try has ended.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.core import mail
from django.db import connections
from django.dispatch import Signal

from .conf import get_config
from .registry import find
from .telemetry import Event, Facts, report_consumer, subscribe
from .threads.batching import BatchThread
from .threads.connections import look

MOST_WAITING = 10_000
"""Signals that wait for slow receivers. Further ones are dropped, which is an event."""
IDLE_SECONDS = 10.0
TRY = ("execution_id", "execution_uuid", "try_id", "try_number", "task", "queue", "worker")
TIMES = ("duration", "queue_time")
ERROR = ("error_class", "error", "exception")
OUTCOMES = {"try_succeeded": "success", "execution_failed": "failed", "execution_cancelled": "cancelled"}


class TaskSignal(Signal):
    """A signal that is made from events. As long as no receiver is connected, it costs nothing."""

    def __init__(self, arguments: Sequence[str], events: Sequence[str]) -> None:
        super().__init__()
        self.arguments = tuple(arguments)
        self._events = events
        self._unsubscribe: Callable[[], None] | None = None

    def connect(self, *args: Any, **kwargs: Any) -> None:
        super().connect(*args, **kwargs)
        if self._unsubscribe is None:
            for signal in _IN_ORDER:
                signal._subscribe(anew=signal is self)

    def _subscribe(self, *, anew: bool) -> None:
        """Subscribe, or subscribe again: of one event, signals are sent in their order, not in that of their use."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        elif not anew:
            return
        self._unsubscribe = subscribe(self._hear, self._events)

    def disconnect(self, *args: Any, **kwargs: Any) -> bool:
        is_gone: bool = super().disconnect(*args, **kwargs)
        if self._unsubscribe is not None and not self.has_listeners():
            self._unsubscribe()
            self._unsubscribe = None
        return is_gone

    def _hear(self, event: Event, facts: Facts) -> None:
        message = (self, event.name, facts)
        held = _held.get()
        if held is not None and not held.is_sent:
            held.messages.append(message)
        elif not _thread.put(message):
            report_consumer(self, event_name=event.name, dropped=1)

    def deliver(self, event_name: str, facts: Facts) -> None:
        """Call the receivers here, and wait for them. Raises nothing."""
        known = {**facts, "exception": facts.get("exc_info"), "outcome": OUTCOMES.get(event_name)}
        known["run_after"] = facts.get("due_at")
        arguments = {name: known.get(name) for name in self.arguments}
        for receiver, answer in self.send_robust(_sender(str(facts["task"])), **arguments):
            if isinstance(answer, Exception):
                report_consumer(receiver, event_name=event_name, error=repr(answer), exc_info=answer)


Message = tuple[TaskSignal, str, Facts]

task_enqueued = TaskSignal(
    ["execution_id", "execution_uuid", "task", "queue", "run_after"],
    ["execution_enqueued"],
)
"""A call was written, and its transaction has committed."""
task_started = TaskSignal([*TRY, "queue_time"], ["try_started"])
"""A try begins: the first one of an execution, or a retry."""
try_failed = TaskSignal([*TRY, *TIMES, *ERROR, "next_try", "next_try_at"], ["try_failed", "execution_failed"])
"""A try failed. After the last one, `next_try` is None, and `task_finished` follows."""
task_finished = TaskSignal([*TRY, *TIMES, "outcome", *ERROR], list(OUTCOMES))
"""An execution has ended: `outcome` is "success", "failed" or "cancelled"."""
_IN_ORDER = (task_enqueued, task_started, try_failed, task_finished)


class Held:
    """The signals of a run in the caller's thread, until it has ended."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.is_sent = False

    def send(self) -> None:
        """Call the receivers, in this thread."""
        self.is_sent = True
        for signal, event_name, facts in self.messages:
            signal.deliver(event_name, facts)


@contextmanager
def held() -> Iterator[Held]:
    """Keep the signals that the block leads to, for the caller to send."""
    kept = Held()
    token = _held.set(kept)
    try:
        yield kept
    finally:
        _held.reset(token)


def flush(timeout: float) -> bool:
    """Wait until the receivers have been called for all that has happened so far. False: not within `timeout` seconds.

    For tests, which want to see what a receiver did.
    """
    return _thread.flush(timeout)


def _deliver(messages: Sequence[Message]) -> None:
    look()
    for signal, event_name, facts in messages:
        try:
            signal.deliver(event_name, facts)
        except Exception as error:
            report_consumer(signal, event_name=event_name, error=repr(error), exc_info=error)


def _sender(path: str) -> Any:
    """The task as its module has it, so that receivers may name it; None for one that this process does not know."""
    module_name, _, func_name = path.rpartition(".")
    spec = find(module_name, func_name)
    return None if spec is None else getattr(sys.modules.get(spec.function.__module__), spec.func_name, None)


def _idle_seconds() -> float:
    """Under a test runner no connection may be left when the test database is dropped."""
    return 0.0 if hasattr(mail, "outbox") else IDLE_SECONDS


_held: ContextVar[Held | None] = ContextVar("i3tasks_held_signals", default=None)
_thread: BatchThread[Message] = BatchThread(
    "i3tasks-signals",
    _deliver,
    max_batch=100,
    max_queued=MOST_WAITING,
    idle_seconds=_idle_seconds,
    on_end=connections.close_all,
)


@atexit.register
def _flush_at_exit() -> None:
    try:
        seconds = get_config().settings.flush_seconds
    except Exception:  # reported when the settings were read: nothing was sent
        return
    flush(seconds)

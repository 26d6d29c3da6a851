"""The event bus: modules report what happened, and log lines, metrics, spans and signals are made from it.

    emit("try_succeeded", duration=0.2, queue_time=1.0)
    stop = subscribe(count, ["try_succeeded", "try_failed"])

Reporting never raises and never waits. An event that nothing listens to costs a microsecond.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from . import lines
from .catalogue import EVENTS, TRACEBACK, Event
from .context import Facts, run_facts

Consumer = Callable[[Event, Facts], object]
"""Gets each event that it asked for, in the thread in which it happens. It must not wait: `signals` has a thread."""
SAID_AGAIN_SECONDS = 60.0

violations: list[str] | None = None
"""Emits that break the catalogue. Only tests set a list: elsewhere such an event is logged as it is."""


def emit(name: str, **facts: Any) -> None:
    """Report that the event `name` happened, with its facts as they are: consumers turn them into text or numbers.

    `exc_info` is an exception whose traceback belongs to the event. Never raises: neither a broken log handler nor a
    broken consumer must stop a worker.
    """
    try:
        event = EVENTS.get(name) or Event(name, lines.UNDECLARED_LEVEL, "")
        listeners = _listeners.get(name, ())
        is_logged = lines.is_logged(event)
        if not (listeners or is_logged or violations is not None):
            return
        if event.is_about_a_try and "execution_id" not in facts:
            facts = {**run_facts(), **facts}
        if violations is not None:
            _check(event, facts)
        if is_logged:
            with suppress(Exception):  # a handler's error, or a fact's: consumers hear of the event all the same
                lines.log(event, facts)
    except Exception:
        return
    for consumer in listeners:
        try:
            consumer(event, facts)
        except Exception as error:
            report_consumer(consumer, event_name=name, error=repr(error), exc_info=error)


def wanted(name: str) -> bool:
    """Whether anything listens to this event. Ask before you gather facts that cost something."""
    return name in _listeners or lines.is_logged(EVENTS[name])


def subscribe(consumer: Consumer, names: Iterable[str] | None = None) -> Callable[[], None]:
    """Give `consumer` the events of these names, or all. Returns a function that ends this.

    Consumers are called in the order in which they were added. Raises ValueError for a name that no event has.
    """
    chosen = list(EVENTS) if names is None else list(names)
    for name in chosen:
        if name not in EVENTS:
            raise ValueError(f"There is no event {name!r}: see docs/reference/events.md.")
    with _lock:
        for name in chosen:
            _listeners[name] = (*_listeners.get(name, ()), consumer)

    def unsubscribe() -> None:
        with _lock:
            for name in chosen:
                left = list(_listeners.get(name, ()))
                if consumer in left:
                    left.remove(consumer)
                if left:
                    _listeners[name] = tuple(left)
                else:
                    _listeners.pop(name, None)

    return unsubscribe


def report_consumer(consumer: Any, **facts: Any) -> None:
    """Log, once a minute for each, that a consumer failed or fell behind. Consumers are not told of it."""
    now = time.monotonic()
    said_at, others = _said.get(consumer, (float("-inf"), 0))
    if now - said_at < SAID_AGAIN_SECONDS:
        _said[consumer] = (said_at, others + 1)
        return
    _said[consumer] = (now, 0)
    _report(consumer=getattr(consumer, "__qualname__", repr(consumer)), others=others, **facts)


def _report(**facts: Any) -> None:
    try:
        lines.log(EVENTS["consumer_failed"], facts)
    except Exception:
        return


def _check(event: Event, facts: Facts) -> None:
    assert violations is not None
    if event.name not in EVENTS:
        violations.append(f"The event {event.name!r} is not in the catalogue of telemetry.")
    elif problem := event.problem({name for name, fact in facts.items() if name != TRACEBACK or fact is not None}):
        violations.append(problem)


_listeners: dict[str, tuple[Consumer, ...]] = {}
_lock = threading.Lock()  # between those that subscribe; `emit` reads without it
_said: dict[Any, tuple[float, int]] = {}

"""Tries on their way to Pub/Sub: passes them to the publisher and records the result in their rows."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.util import Finalize, register_after_fork

from ..broker.errors import BrokerUnavailable
from ..broker.outgoing import MakeMessage, Outgoing
from ..broker.publisher import flush_all, get_publisher
from ..conf import Config, get_config, queue_or_default
from ..core.clock import Clock, current_clock
from ..core.envelope import Envelope, attributes
from ..exceptions import BrokerError, UnknownQueueError
from ..registry import find, topic_of
from ..store.operations import CONFIRM, DENY, PUT_BACK, READ_PAUSES, WITHHOLD
from ..store.pauses import known_pauses
from ..store.requests import TryRef
from ..telemetry import emit, propagation
from ..telemetry.propagation import message_attributes
from .gateway import writer

SAID_AGAIN_SECONDS = 60.0
"""Seconds between two events about failures of one topic, whose backlog may be of any size."""


def send(refs: Iterable[TryRef], *, clock: Clock | None = None) -> None:
    """Publish these tries without waiting, from any thread. A try that fails stays due in its row: none is lost."""
    config = get_config()
    pub_time = attributes((clock or current_clock()).now())
    ways: dict[tuple[str, str, str | None], _Way] = {}
    messages: list[MakeMessage] = []
    unconfirmed: list[TryRef] = []
    are_any_in_database = False
    for ref in refs:
        place = (ref.module_name, ref.func_name, ref.queue_name)
        way = ways.get(place) or ways.setdefault(place, _way_of(ref, config))
        if way.is_paused:
            writer.post(WITHHOLD, ref)
        elif way.error is not None:
            _report_failure(ref, f"queue {ref.queue_name}", way.error)
        elif way.topic:
            messages.append(partial(_message, ref, way, pub_time))
        else:
            are_any_in_database = True
            if not ref.is_published:
                unconfirmed.append(ref)
    if messages:
        get_publisher().publish(*messages)
    if are_any_in_database:
        writer.post_all(CONFIRM, unconfirmed, at_once=True)  # there are no messages to wait for
        _look_for_pauses()


@dataclass(frozen=True, slots=True)
class _Way:
    """The way of a task's tries on one queue: to a topic, or, without one, to the workers that look for them."""

    topic: str = ""
    bind: bool = False
    is_paused: bool = False
    error: UnknownQueueError | None = None


def _way_of(ref: TryRef, config: Config) -> _Way:
    if known_pauses.hold(ref.queue_name):
        return _Way(is_paused=True)
    try:
        spec = find(ref.module_name, ref.func_name)
        topic = topic_of(ref.module_name, ref.func_name, ref.queue_name, config)
        return _Way(topic, bind=spec is not None and spec.options.bind)
    except UnknownQueueError as error:
        return _Way(error=error)


def _message(ref: TryRef, way: _Way, pub_time: Mapping[str, str]) -> Outgoing:
    envelope = Envelope(ref.execution_id, ref.try_id, ref.module_name, ref.func_name, way.bind)
    if ref.trace_context is None:
        return Outgoing(way.topic, envelope.to_bytes(), pub_time, _published, ref)
    attributes = {**pub_time, **message_attributes(ref.trace_context)}
    return Outgoing(way.topic, envelope.to_bytes(), attributes, _traced(ref, way.topic), ref)


def _traced(ref: TryRef, topic: str) -> Callable[[Sequence[Outgoing], BrokerError | None], None]:
    tracer = propagation.tracer
    if tracer is None or not isinstance(ref.trace_context, dict):
        return _published
    queue = queue_or_default(ref.queue_name)
    facts = {"task": f"{ref.module_name}.{ref.func_name}", "queue": queue, "topic": topic}
    began = time.time_ns()

    def published_and_traced(messages: Sequence[Outgoing], error: BrokerError | None) -> None:
        _published(messages, error)
        tracer.sent(facts, ref.trace_context, began, error)

    return published_and_traced


def _published(messages: Sequence[Outgoing], error: BrokerError | None) -> None:
    refs = [message.about for message in messages]
    if error is None:
        # The turn of those with a priority may come before their messages do.
        writer.post_all(CONFIRM, [ref for ref in refs if ref.priority > 0], at_once=True)
        writer.post_all(CONFIRM, [ref for ref in refs if ref.priority <= 0])
        _look_for_pauses()
    elif isinstance(error, BrokerUnavailable):  # the publisher reports an outage once
        writer.post_all(PUT_BACK, refs)
    else:
        writer.post_all(DENY, refs)
        for message in messages:
            _report_failure(message.about, message.topic, error)


def _look_for_pauses() -> None:
    if known_pauses.grow_stale(current_clock().monotonic()):
        writer.post(READ_PAUSES, None)


class _Failures:
    """Limits the events about failed publishes: one per topic and minute, with the number of failures left out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # between the publisher's thread and those that send
        self._said_at: dict[str, float] = {}
        self._unsaid: Counter[str] = Counter()

    def others(self, topic: str, now: float) -> int | None:
        """Return the number of failures left out since the topic's last event, or None to leave this one out, too."""
        with self._lock:
            if now - self._said_at.get(topic, float("-inf")) < SAID_AGAIN_SECONDS:
                self._unsaid[topic] += 1
                return None
            self._said_at[topic] = now
            return self._unsaid.pop(topic, 0)


_failures = _Failures()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_failures.__init__)  # type: ignore[misc]  # the lock may have been held


def _report_failure(ref: TryRef, topic: str, error: Exception) -> None:
    others = _failures.others(topic, current_clock().monotonic())
    if others is not None:
        task = f"{ref.module_name}.{ref.func_name}"
        facts = {
            "execution_id": ref.execution_id,
            "try_id": ref.try_id,
            "task": task,
            "queue": ref.queue_name,
            "topic": topic,
        }
        emit("publish_failed", **facts, others=others, error=str(error))


@atexit.register
def flush() -> None:
    """Wait up to `flush_seconds` until the results of publishes are written.

    At exit the publisher's own handler runs before this one and sends the last messages.
    """
    try:
        settings = get_config().settings
    except Exception:  # reported when the settings were read: nothing was sent
        return
    if settings.register_client_teardown:
        writer.flush(settings.flush_seconds)


def flush_now() -> None:
    """Wait, as at exit, until everything sent so far has come to Pub/Sub or back to the dispatcher."""
    flush_all()
    flush()


def _flush_at_the_end_of_a_child(*_: object) -> None:
    """multiprocessing ends its children without their exit handlers."""
    Finalize(None, flush_now, exitpriority=0)


_flush_at_the_end_of_a_child()  # of one that imports this
register_after_fork(flush_now, _flush_at_the_end_of_a_child)

"""Traces by OpenTelemetry: `pip install 'i3tasks[otel]'`, and `instrument()` in an AppConfig's `ready`.

Spans have the names and attributes of the semantic conventions for messaging:

    create TOPIC     where the call is made, within the request's or the task's span
    send TOPIC       the message's way to Pub/Sub, from the outbox
    process TOPIC    each try

The row keeps the context of `create`; each try is its child, and linked to it. What a try leads to (steps, callbacks,
calls of its body) is a child of that try.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..conf import get_config
from ..telemetry import Event, Facts, propagation, subscribe
from ..telemetry.propagation import TRACE, Travels

NAME = "i3tasks"
SYSTEM = "gcp_pubsub"
WITHOUT_PUBSUB = "i3tasks"
"""The system of a DatabaseQueue."""
_W3C = TraceContextTextMapPropagator()
_ENDS = ("try_failed", "execution_failed", "execution_cancelled", "settlement_stale")

_current: ContextVar[tuple[Span, int]] = ContextVar("i3tasks_process_span", default=(trace.INVALID_SPAN, 0))
_stops: list[Callable[[], None]] = []


def instrument(tracer_provider: Any = None, *, separate_traces: bool = False) -> None:
    """Trace what this process enqueues and runs from now on.

    `separate_traces` begins a new trace with each try, which is only linked to the call: for calls that run much later.
    """
    uninstrument()
    tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider)
    propagation.tracer = _Spans(tracer, separate_traces)
    _stops.append(subscribe(_note_end, _ENDS))


def uninstrument() -> None:
    """Trace no more."""
    propagation.tracer = None
    while _stops:
        _stops.pop()()


class _Spans:
    """The `Tracer` of `telemetry.propagation`."""

    def __init__(self, tracer: trace.Tracer, separate_traces: bool) -> None:
        self._tracer = tracer
        self._separate = separate_traces

    def created(self, facts: Facts) -> Travels:
        with suppress(Exception):
            name, attributes = f"create {_destination(facts)}", _about(facts, "create")
            with self._tracer.start_as_current_span(name, kind=SpanKind.PRODUCER, attributes=attributes) as span:
                return _carrier(span)
        return {}

    @contextmanager
    def processing(self, facts: Facts, travels: Travels) -> Iterator[Travels]:
        span = self._process_span(facts, travels)
        token = _current.set((span, facts["try_id"]))
        try:
            with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
                yield _carrier(span)
        finally:
            _current.reset(token)

    def _process_span(self, facts: Facts, travels: Travels) -> Span:
        parent = _context_of(travels)
        links = [] if parent is None else [Link(trace.get_current_span(parent).get_span_context())]
        if parent is None or self._separate:
            parent = contexts.Context()
        try:
            name, attributes = f"process {_destination(facts)}", {**_about(facts, "process"), **_about_the_try(facts)}
            return self._tracer.start_span(name, parent, SpanKind.CONSUMER, attributes, links)
        except Exception:  # an exporter's or a sampler's: the try runs all the same
            return trace.INVALID_SPAN

    @contextmanager
    def within(self, travels: Travels) -> Iterator[None]:
        parent = _context_of(travels)
        if parent is None:
            yield
            return
        token = contexts.attach(parent)
        try:
            yield
        finally:
            contexts.detach(token)

    def sent(self, facts: Facts, travels: Travels, began_ns: int, error: Exception | None) -> None:
        parent = _context_of(travels)
        if parent is None:
            return
        with suppress(Exception):
            name, attributes = f"send {_destination(facts)}", _about(facts, "send")
            span = self._tracer.start_span(name, parent, SpanKind.CLIENT, attributes, start_time=began_ns)
            if error is not None:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR, str(error)))
            span.end(max(time.time_ns(), began_ns))


def _note_end(event: Event, facts: Facts) -> None:
    """Note in the try's span how the try ended, unless it succeeded."""
    span, try_id = _current.get()
    if facts.get("try_id") != try_id:  # an event about another try, which this body has caused
        return
    if "error_class" in facts:
        span.set_attribute("error.type", facts["error_class"])
    if isinstance(error := facts.get("exc_info"), BaseException):
        span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, str(facts.get("error", event.name))))


def _about(facts: Facts, operation: str) -> dict[str, Any]:
    said = {
        "messaging.system": SYSTEM if _topic(facts) else WITHOUT_PUBSUB,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": _destination(facts),
        "i3tasks.task": facts["task"],
        "i3tasks.queue": facts["queue"],
    }
    if "execution_uuid" in facts:
        said["messaging.message.conversation_id"] = str(facts["execution_uuid"])
    return said


def _about_the_try(facts: Facts) -> dict[str, Any]:
    queue = get_config().queues.get(facts["queue"])
    return {
        "messaging.client.id": facts["worker"],
        "i3tasks.execution_id": facts["execution_id"],
        "i3tasks.try_id": facts["try_id"],
        "i3tasks.try_number": facts["try_number"],
        **({"messaging.destination.subscription.name": _last(queue.subscription)} if queue and queue.topic else {}),
    }


def _destination(facts: Facts) -> str:
    """The topic's own name; the queue's, for a DatabaseQueue."""
    return _last(_topic(facts)) or str(facts["queue"])


def _topic(facts: Facts) -> str:
    queue = get_config().queues.get(facts["queue"])
    return str(facts.get("topic") or (queue.topic if queue else ""))


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _carrier(span: Span) -> dict[str, str]:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span))
    return carrier


def _context_of(travels: Travels) -> contexts.Context | None:
    """The context of the span that the row or the message names; None: it names none."""
    carrier = {name: travels[name] for name in TRACE if isinstance(travels.get(name), str)}
    found = _W3C.extract(carrier, contexts.Context())
    return found if trace.get_current_span(found).get_span_context().is_valid else None

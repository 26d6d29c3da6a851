"""The context that travels with a call: the trace that it belongs to, chosen request headers, and chosen log context.

    {"traceparent": "00-...", "tracestate": "...", "headers": {"x-request-id": "7"}, "context": {"tenant": 3}}

It is kept in the execution's row, because the outbox, retries and workflows outlive a message. Each try of that
execution runs within it, and passes it on to the calls that its body makes and to the steps that follow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol

from .context import Facts
from .lines import log_context

Travels = Mapping[str, Any]
"""JSON data, as above. Keys without a value are left out."""
TRACE = ("traceparent", "tracestate")
LONGEST_TEXT = 1000
"""Characters of a header, or of a value of the log context. Pub/Sub takes 1,024 bytes for an attribute."""

_NOTHING = nullcontext()
_travels: ContextVar[Travels | None] = ContextVar("i3tasks_travels", default=None)


class Tracer(Protocol):
    """Makes the spans. Its methods must not raise."""

    def created(self, facts: Facts) -> Travels:
        """Record that a call is made here, within the current span. Returns the trace that its row keeps."""
        ...

    def processing(self, facts: Facts, travels: Travels) -> AbstractContextManager[Travels]:
        """Trace a try while the block runs. Gives the trace for the calls that it leads to."""
        ...

    def within(self, travels: Travels) -> AbstractContextManager[None]:
        """Make the span that `travels` names the current one: in a process of a body's own."""
        ...

    def sent(self, facts: Facts, travels: Travels, began_ns: int, error: Exception | None) -> None:
        """Record that a message was given to Pub/Sub, between `began_ns` (since 1970) and now."""
        ...


tracer: Tracer | None = None
"""Set by `contrib.otel`."""


def travels_now() -> Travels | None:
    """The context for the calls that the current request or run leads to; None: there is none."""
    return _travels.get()


def outgoing(facts: Facts, names: Collection[str]) -> dict[str, Any] | None:
    """The context that a call that is made here takes along; None: there is none.

    `facts` are the `task`, the `queue` and its `topic`; `names` those of the log context that travel.
    """
    travels = dict(_travels.get() or ())
    if names and (chosen := _log_context(names)):
        travels["context"] = {**travels.get("context", {}), **chosen}
    if tracer is not None:
        travels.update(tracer.created(facts))
    return travels or None


@contextmanager
def travelling(travels: Travels | None) -> Iterator[None]:
    """Let the calls of the block take these along, and its log lines have the context."""
    if not travels and _travels.get() is None:
        yield
        return
    token = _travels.set(travels)
    context = (travels or {}).get("context")
    try:
        with _bound(context) if isinstance(context, dict) and context else _NOTHING:
            yield
    finally:
        _travels.reset(token)


def processing(facts: Facts, travels: Any) -> AbstractContextManager[None]:
    """Trace a try while the block runs, and let what it leads to take along what its execution has."""
    if tracer is None and not travels and _travels.get() is None:
        return _NOTHING
    kept = travels if isinstance(travels, dict) else None
    return travelling(kept) if tracer is None else _traced(tracer, facts, kept or {})


@contextmanager
def _traced(tracer: Tracer, facts: Facts, travels: Travels) -> Iterator[None]:
    with tracer.processing(facts, travels) as trace, travelling({**travels, **trace} or None):
        yield


@contextmanager
def continuing(travels: Travels | None) -> Iterator[None]:
    """`processing` of a body that runs in a process of its own: the span is its parent's."""
    with ExitStack() as stack:
        if tracer is not None and travels:
            stack.enter_context(tracer.within(travels))
        stack.enter_context(travelling(travels))
        yield


def message_attributes(travels: Any) -> dict[str, str]:
    """The attributes by which others can tell from a message which trace it belongs to."""
    if not isinstance(travels, dict):
        return {}
    found = {name: travels.get(name) for name in TRACE}
    return {name: text for name, text in found.items() if isinstance(text, str) and 0 < len(text) <= LONGEST_TEXT}


def headers_of(headers: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """The headers of a request that travel, with their names in lower case."""
    found = {name.lower(): headers.get(name) for name in names}
    return {name: text[:LONGEST_TEXT] for name, text in found.items() if text}


def _bound(context: dict[str, Any]) -> AbstractContextManager[Any]:
    from structlog.contextvars import bound_contextvars  # imported by what needs it: see `lines`

    return bound_contextvars(**context)


def _log_context(names: Collection[str]) -> dict[str, Any]:
    bound = log_context()
    return {name: _plain(bound[name]) for name in names if name in bound}


def _plain(value: Any) -> Any:
    """The value as JSON can hold it."""
    if value is None or isinstance(value, (bool, int)):
        return value
    return str(value)[:LONGEST_TEXT]

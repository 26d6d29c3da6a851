"""The context that calls take along from their caller: trace, headers and log context."""

from __future__ import annotations

from collections.abc import Iterable

from ..conf import get_config, queue_or_default
from ..store.enqueue import NewExecution
from ..telemetry import propagation


def take_along(calls: Iterable[NewExecution]) -> None:
    """Give the calls the context that travels with them, as their rows keep it. A tracer makes their spans here."""
    names = get_config().settings.propagate_context
    if propagation.tracer is None:  # then all take the same along
        travels = propagation.outgoing({}, names)
        for call in calls:
            call.trace_context = travels
        return
    for call in calls:
        task = f"{call.module_name}.{call.func_name}"
        call.trace_context = propagation.outgoing({"task": task, "queue": queue_or_default(call.queue_name)}, names)

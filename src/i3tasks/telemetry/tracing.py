"""The trace of the current context, for log lines. OpenTelemetry is asked only where the process has loaded it."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trace:
    """A span of a trace, by the ids in hexadecimal digits that every tracing system knows."""

    trace_id: str
    span_id: str
    is_sampled: bool


def current_trace() -> Trace | None:
    """The span that this code runs in; None if there is none."""
    otel = sys.modules.get("opentelemetry.trace")
    if otel is None:
        return None
    try:
        context = otel.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return Trace(f"{context.trace_id:032x}", f"{context.span_id:016x}", bool(context.trace_flags.sampled))
    except Exception:  # half imported, or of another version: a log line is written all the same
        return None

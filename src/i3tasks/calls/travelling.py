"""The context that a call takes along from its caller: trace, headers and log context."""

from __future__ import annotations

from typing import Any

from ..conf import get_config, queue_or_default


def travels_with(task: str, queue_name: str | None) -> dict[str, Any] | None:
    """The context that travels with a call of the task, as its row keeps it. A tracer makes its `create` span here."""
    from ..telemetry.propagation import outgoing  # late: a process that only defines tasks reports nothing

    facts = {"task": task, "queue": queue_or_default(queue_name)}
    return outgoing(facts, get_config().settings.propagate_context)
